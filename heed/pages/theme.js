"use strict";
// Light or dark as the system has it, or as the reader chose; the choice is kept where the browser allows that.
(() => {
  const KEY = "heed-theme";
  const show = (choice) => {
    if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
    else delete document.documentElement.dataset.theme;
  };
  let choice = "auto";
  try {
    choice = localStorage.getItem(KEY) || "auto";
  } catch {
    // A page opened from a file may have no storage: the system's colours then.
  }
  show(choice);
  document.addEventListener("DOMContentLoaded", () => {
    const theme = document.getElementById("theme");
    theme.hidden = false;
    for (const input of theme.querySelectorAll("input")) {
      input.checked = input.value === choice;
      input.addEventListener("change", () => {
        show(input.value);
        try {
          localStorage.setItem(KEY, input.value);
        } catch {
          // The choice holds until the page is closed.
        }
      });
    }
  });
})();
