"use strict";

// A hidden picture becomes sharp only when its button is pressed.
function ask(button) {
  button.closest("figure").querySelector("img").src = button.dataset.sharp;
  button.remove();
}

function askButton(address) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "ask", textContent: "Show it" });
  button.dataset.sharp = address;
  return button;
}

function show(figure, drawn) {
  const image = new Image();
  image.src = drawn.picture;
  image.alt = drawn.verdict;
  figure.prepend(image, ...(drawn.sharp ? [askButton(drawn.sharp)] : []));
  figure.querySelector(".verdict").textContent = drawn.verdict;
}

function clear(figure, said) {
  figure.querySelectorAll("img, .ask").forEach((each) => each.remove());
  figure.querySelector(".verdict").textContent = said;
}

// The figure of a defense that was typed comes last, and goes when another is typed.
function figures(form) {
  const columns = document.getElementById("columns");
  columns.querySelector(".typed")?.remove();
  const typed = form.elements.baseline.value.trim();
  if (typed) {
    const figure = columns.firstElementChild.cloneNode(true);
    figure.className = "typed";
    figure.dataset.defense = typed;
    figure.querySelector("b").textContent = typed;
    columns.append(figure);
  }
  return [...columns.children];
}

async function draw(form, figure) {
  clear(figure, "drawing …");
  const wish = new FormData(form);
  wish.set("defense", figure.dataset.defense);
  const answer = await fetch("/draw", { method: "POST", body: wish });
  if (!answer.ok) throw new Error(await answer.text());
  show(figure, await answer.json());
}

async function drawAll(form) {
  const said = document.getElementById("said");
  const button = form.querySelector("button");
  const file = form.elements.picture.files[0];
  said.textContent = "";
  if (file && file.size > form.dataset.largest) {
    said.textContent = `the picture is too large; give one of at most ${form.dataset.largest >> 20} MiB`;
    return;
  }
  button.disabled = true;
  for (const figure of figures(form)) {
    try {
      await draw(form, figure);
    } catch (error) {
      clear(figure, "not drawn");
      said.textContent = error.message;
    }
  }
  button.disabled = false;
}

document.addEventListener("click", (event) => {
  if (event.target.matches(".ask")) ask(event.target);
});
document.getElementById("wish")?.addEventListener("submit", (event) => {
  event.preventDefault();
  drawAll(event.target);
});
