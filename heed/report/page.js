"use strict";
// The list of answers: filtered, ordered, searched and shown a page at a time. Texts become text nodes, never markup.
(() => {
  const PAGE = 10;
  const LONG = 600;
  const WAIT = 120;
  const byId = (id) => document.getElementById(id);

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // Which part is being read, in the rail.
  const links = new Map([...document.querySelectorAll(".rail a")].map((link) => [link.hash.slice(1), link]));
  const reading = new Set();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) reading[entry.isIntersecting ? "add" : "delete"](entry.target.id);
      const current = [...links.keys()].find((id) => reading.has(id));
      for (const [id, link] of links) {
        if (id === current) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    },
    { rootMargin: "-80px 0px -50% 0px" },
  );
  for (const id of links.keys()) if (byId(id)) observer.observe(byId(id));

  const browser = byId("browser");
  if (!browser) return;
  // Of a row and its answers, what is empty is left out.
  const { names, measures, measure: opening, disputed, filters, said, rows } = JSON.parse(byId("answers").textContent);
  const ours = names.length - 1;
  browser.hidden = false;

  // What the list shows now.
  const state = { words: [], filter: "", measure: opening ?? 0, order: measures.length ? "worst" : "row", page: 0 };

  const known = (value) => typeof value === "number";
  const gain = (row) => {
    const [before, after] = [row.values[0][state.measure], row.values[ours][state.measure]];
    if (!known(before) || !known(after)) return null;
    return measures[state.measure].less ? before - after : after - before;
  };
  const goodness = (row) => {
    const value = row.values[ours][state.measure];
    if (!known(value)) return null;
    return measures[state.measure].less ? -value : value;
  };
  const ORDERS = [
    ["worst", "Worst first", measures.length > 0, goodness],
    ["best", "Best first", measures.length > 0, (row) => negative(goodness(row))],
    ["fell", "Fell most", names.length > 1 && measures.length > 0, gain],
    ["disputed", "Most disputed", disputed !== null, (row) => negative(row.disputed)],
    ["row", "By row", true, (row) => row.id],
  ].filter(([, , usable]) => usable);
  const negative = (value) => (known(value) ? -value : null);

  // A text that is cut in this page is its beginning, and how many characters it had.
  const beginning = (text = "") => (Array.isArray(text) ? text[0] : text);

  // A verdict is its place among what judges said, and why, or what a judge replied that failed.
  const reasons = (verdicts = []) => verdicts.map(([, text]) => text);
  const verdictBlocks = (verdicts = []) =>
    verdicts.map(([place, text]) => {
      const { text: opinion, failed } = said[place];
      return folded(failed ? "said-of bad" : "said-of", text, `${opinion}${text ? ": " : ""}`);
    });

  // Every text of a row in one, made when it is first searched.
  const texts = new Map();
  const textOf = (row) => {
    if (!texts.has(row)) {
      const answers = row.answers.flatMap((answer) => (answer ? [answer.text, ...reasons(answer.verdicts)] : []));
      const all = [`row ${row.id}`, row.system, row.instruction, row.input, row.output, ...answers, ...reasons(row.pairs)];
      texts.set(row, all.map(beginning).join("\n").toLowerCase());
    }
    return texts.get(row);
  };

  const chosen = () => {
    const key = ORDERS.find(([id]) => id === state.order)[3];
    const tag = filters.findIndex((each) => each.tag === state.filter);
    return rows
      .filter((row) => tag < 0 || row.tags.includes(tag))
      .filter((row) => state.words.every((word) => textOf(row).includes(word)))
      .map((row) => [key(row), row])
      .sort(([a, first], [b, second]) => {
        if (known(a) && known(b)) return a - b || first.id - second.id;
        return known(a) ? -1 : known(b) ? 1 : first.id - second.id; // rows without a value come last
      })
      .map(([, row]) => row);
  };

  // A text with the words that are searched for marked in it.
  const marked = (text) => {
    const fragment = document.createDocumentFragment();
    const lower = text.toLowerCase();
    if (!state.words.length || lower.length !== text.length) {
      fragment.append(text);
      return fragment;
    }
    let from = 0;
    while (from < text.length) {
      let [place, length] = [-1, 0];
      for (const word of state.words) {
        const found = lower.indexOf(word, from);
        if (found >= 0 && (place < 0 || found < place || (found === place && word.length > length))) {
          [place, length] = [found, word.length];
        }
      }
      if (place < 0) break;
      fragment.append(text.slice(from, place), make("mark", {}, text.slice(place, place + length)));
      from = place + length;
    }
    fragment.append(text.slice(from));
    return fragment;
  };

  const number = (value) => value.toLocaleString("en");

  const figure = (value, place) => {
    if (value === null || value === undefined) return "–";
    if (!known(value)) return value;
    return measures[place].digits ? value.toFixed(measures[place].digits) : String(value);
  };

  // A text whose end is folded away if it is long, unless a word that is searched for stands only there.
  const folded = (look, given, before = "") => {
    const text = before + beginning(given);
    const end = Array.isArray(given) ? " …" : "";
    const lower = text.toLowerCase();
    const whole = text.length <= LONG || state.words.some((word) => lower.indexOf(word) + word.length > LONG);
    const block = make("div", { class: look }, marked(whole ? text : text.slice(0, LONG)), whole ? end : " …");
    const both = document.createDocumentFragment();
    both.append(block);
    if (end) {
      const here = given[0] ? `Only the first ${number([...given[0]].length)}` : "None";
      both.append(make("p", { class: "left" }, `${here} of ${number(given[1])} characters are here`));
    }
    if (whole) return both;
    const more = make("button", { type: "button", class: "more" }, `Show ${end ? "" : "all "}${number(text.length)} characters`);
    more.addEventListener("click", () => {
      block.replaceChildren(marked(text), end);
      block.tabIndex = -1;
      block.focus();
      more.remove();
    });
    block.after(more);
    return both;
  };

  const textBlock = (text) => (text ? folded("text", text) : make("div", { class: "text none" }, "(empty)"));

  const side = (row, place) => {
    const answer = row.answers[place];
    const look = place === ours ? "ours" : "theirs";
    const head = make("h4", {}, make("span", { class: `dot ${look}`, "aria-hidden": "true" }), names[place]);
    const box = make("div", { class: `side is-${look}` }, head);
    if (!answer) {
      box.append(make("div", { class: "text none" }, "(not asked)"));
      return box;
    }
    if (measures.length) {
      const value = row.values[place][state.measure];
      head.append(make("span", { class: "at", title: measures[state.measure].label }, figure(value, state.measure)));
    }
    box.append(textBlock(answer.text));
    box.append(...verdictBlocks(answer.verdicts));
    return box;
  };

  const details = (row) => {
    const table = make("table");
    const head = make("tr", {}, make("th", { scope: "col" }, "Measure"));
    for (const name of names) head.append(make("th", { scope: "col", class: "number" }, name));
    const body = make("tbody");
    measures.forEach((measure, place) => {
      const line = make("tr", {}, make("th", { scope: "row" }, measure.label));
      names.forEach((_, which) => line.append(make("td", { class: "number" }, figure(row.values[which][place], place))));
      body.append(line);
    });
    for (const [label, field] of [["Tokens", "tokens"], ["Finish reason", "finish"]]) {
      const line = make("tr", {}, make("th", { scope: "row" }, label));
      for (const answer of row.answers) line.append(make("td", { class: "number" }, String(answer?.[field] ?? "–")));
      body.append(line);
    }
    table.append(make("thead", {}, head), body);
    const box = make("details", {}, make("summary", {}, "All measures"), make("div", { class: "scroll" }, table));
    box.append(...verdictBlocks(row.pairs));
    return box;
  };

  const card = (row) => {
    const head = make("div", { class: "card-head" }, make("h3", {}, `Row ${row.id}`));
    for (const { tag } of row.tags.map((place) => filters[place])) {
      if (tag.startsWith("Flag: ")) head.append(make("span", { class: "tag warn" }, tag.slice(6)));
      if (tag.startsWith("Judge failed: ")) head.append(make("span", { class: "tag bad" }, "judge failed"));
      if (tag === "Outcome: worse") head.append(make("span", { class: "tag bad" }, "got worse"));
      if (tag === `Finish reason: ${names[ours]} length`) head.append(make("span", { class: "tag warn" }, "cut short"));
    }
    const box = make("article", { class: "card" }, head);
    if (row.system) box.append(folded("input", row.system));
    box.append(folded("question", row.instruction));
    if (row.input) box.append(folded("input", row.input));
    const expected = make("div", { class: "side" }, make("h4", {}, "expected"), textBlock(row.output));
    box.append(make("div", { class: "sides" }, expected, ...names.map((_, place) => side(row, place))), details(row));
    return make("li", {}, box);
  };

  const show = () => {
    const found = chosen();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const from = state.page * PAGE;
    byId("cards").replaceChildren(...found.slice(from, from + PAGE).map(card));
    const why = state.order === "disputed" ? `; first those where ${disputed}` : "";
    byId("status").textContent = `${number(found.length)} of ${number(rows.length)} rows${why}`;
    byId("page").textContent = `Page ${number(state.page + 1)} of ${number(pages)}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
  };
  const change = (changes) => {
    Object.assign(state, { page: 0 }, changes);
    show();
  };

  const filter = byId("filter");
  filter.append(make("option", { value: "" }, "All rows"));
  const groups = new Map();
  for (const { tag, count } of filters) {
    const [group, ...rest] = tag.split(": ");
    if (!groups.has(group)) groups.set(group, make("optgroup", { label: group }));
    groups.get(group).append(make("option", { value: tag }, `${rest.join(": ")} (${number(count)})`));
  }
  filter.append(...groups.values());
  filter.addEventListener("change", () => change({ filter: filter.value }));

  const measure = byId("measure");
  measures.forEach((each, place) => measure.append(make("option", { value: place }, each.label)));
  measure.value = state.measure;
  measure.closest("label").hidden = !measures.length;
  measure.addEventListener("change", () => change({ measure: Number(measure.value) }));

  for (const [id, label] of ORDERS) {
    const input = make("input", { type: "radio", name: "order", value: id });
    input.checked = id === state.order;
    input.addEventListener("change", () => change({ order: id }));
    byId("order").append(make("label", {}, input, label));
  }

  byId("order").hidden = ORDERS.length < 2;

  let timer;
  const search = byId("search");
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => change({ words: search.value.toLowerCase().split(/\s+/).filter(Boolean) }), WAIT);
  });
  search.form.addEventListener("submit", (event) => event.preventDefault());

  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    byId(id).addEventListener("click", () => {
      state.page += step;
      show();
      byId("status").scrollIntoView({ block: "center" });
    });
  }
  show();
})();
