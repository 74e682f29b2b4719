"use strict";
// Shows the rows a page at a time. Texts reach the page through textContent alone.
(() => {
  const PAGE = 20;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const rows = read("rows");
  const flags = read("flags");
  const splits = read("splits");
  const search = document.getElementById("search");
  const flag = document.getElementById("flag");
  const list = document.getElementById("list");
  for (const row of rows) {
    row.text = (row.examples.map((example) => example.tokens.join("")).join("\n") + "\n" + row.place).toLowerCase();
  }

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const option = (value, text) => {
    const made = element("option", "", text);
    made.value = value;
    flag.append(made);
  };
  option("", `Every row (${rows.length})`);
  option("any", `With any flag (${rows.filter((row) => row.flags.length).length})`);
  flags.forEach((name, number) => {
    const count = rows.filter((row) => row.flags.includes(number)).length;
    if (count) option(name, `${name} (${count})`);
  });
  splits.forEach((name, number) => {
    const count = rows.filter((row) => row.split === number).length;
    if (count) option("split:" + name, `In ${name} (${count})`);
  });

  // What cannot be seen is made visible, without another meaning for the text.
  const visible = (text) => text.replace(/\n/g, "↵\n").replace(/\t/g, "→\t")
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
      (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0"));

  const showExample = (example) => {
    const box = element("p", "tokens");
    const cut = example.cut && element("span", "cut", "✂ " + example.cut);
    if (cut && example.outcome === "cut_prompt") box.append(cut);
    const ends = new Set(example.eos);
    example.tokens.forEach((token, place) => {
      const learned = example.labels[place] === "l";
      const span = element("span", (learned ? "l" : "r") + (ends.has(place) ? " eos" : ""), visible(token));
      span.title = `token ${place}, ${example.spans.some(([start, end]) => start <= place && place < end) ? "response" : "prompt"}, ${learned ? "learned" : "only read"}`;
      box.append(span);
    });
    if (cut && example.outcome !== "cut_prompt") box.append(cut);
    return box;
  };

  const showRow = (row) => {
    const card = element("article", "row");
    const head = element("header");
    const total = row.examples.reduce((sum, example) => sum + example.tokens.length, 0);
    const learned = row.examples.reduce((sum, example) => sum + example.labels.split("l").length - 1, 0);
    head.append(element("h3", "", `Row ${row.id}`), element("span", "place", row.place));
    head.append(element("span", "small muted", `${splits[row.split] || "unused"}; ${total} tokens, ${learned} learned`));
    for (const number of row.flags) head.append(element("span", "tag warn", flags[number]));
    if (row.like) head.append(element("span", "place", "like " + row.like));
    if (row.otherwise) head.append(element("span", "place", "answered differently in " + row.otherwise));
    card.append(head, ...row.examples.map(showExample));
    return card;
  };

  let first = 0;
  let found = rows;
  const show = () => {
    const last = Math.min(first + PAGE, found.length);
    list.replaceChildren(...found.slice(first, last).map(showRow));
    document.getElementById("page").textContent = found.length ? `${first + 1} to ${last} of ${found.length}` : "no row";
    document.getElementById("back").disabled = first === 0;
    document.getElementById("next").disabled = last === found.length;
  };
  const filter = () => {
    const words = search.value.toLowerCase();
    const wanted = flag.value;
    const number = flags.indexOf(wanted);
    found = rows.filter((row) => row.text.includes(words) && (
      !wanted || (wanted === "any" && row.flags.length) || row.flags.includes(number) ||
      wanted === "split:" + splits[row.split]));
    first = 0;
    show();
  };
  const turn = (by) => {
    first += by;
    show();
    document.getElementById("rows-title").scrollIntoView();
  };
  search.addEventListener("input", filter);
  flag.addEventListener("change", filter);
  document.getElementById("back").addEventListener("click", () => turn(-PAGE));
  document.getElementById("next").addEventListener("click", () => turn(PAGE));
  for (const button of document.querySelectorAll("[data-flag]")) {
    button.addEventListener("click", () => {
      if (![...flag.options].some((each) => each.value === button.dataset.flag)) return;
      flag.value = button.dataset.flag;
      filter();
      document.getElementById("rows-title").scrollIntoView();
    });
  }
  filter();
})();
