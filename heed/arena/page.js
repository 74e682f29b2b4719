() => {
  // Keys for voting. Not while someone types, and not where a key has a meaning of its own.
  const keys = { a: "vote-left", b: "vote-right", t: "vote-tie", x: "vote-both_bad", s: "skip", n: "next", Enter: "next" };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    const own = event.key === "Enter" && event.target.closest("button, summary, a");
    if (typing || own || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const button = document.getElementById(keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]);
    if (!button || button.disabled || button.offsetParent === null) return;
    event.preventDefault();
    button.click();
  });
}
