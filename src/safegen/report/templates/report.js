"use strict";
document.documentElement.classList.add("scripted");
const veils = [...document.querySelectorAll("button.blurred")];
const every = document.querySelector("#every");

function show(veil, shown) {
  veil.setAttribute("aria-pressed", String(shown));
  veil.querySelector(".hint").textContent = shown ? "hide" : "show";
}

for (const veil of veils) {
  veil.addEventListener("click", () => show(veil, veil.getAttribute("aria-pressed") !== "true"));
}

every.addEventListener("click", () => {
  const shown = every.getAttribute("aria-pressed") !== "true";
  every.setAttribute("aria-pressed", String(shown));
  every.textContent = shown ? "Blur them again" : "Show all blurred pictures";
  for (const veil of veils) show(veil, shown);
});
