"use strict";
const PAGE = 24;
const by = (id) => document.getElementById(id);
const make = (name, properties = {}, ...inside) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...inside);
  return element;
};
const state = { picture: null, like: [], tables: {}, asked: 0 };

async function ask(path, body) {
  const answer = await fetch(path, body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || `status ${answer.status}`);
  return told;
}

function say(text, wrong = false) {
  by("said").textContent = text;
  by("said").classList.toggle("wrong", wrong);
}

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

function query() {
  const conditions = ["source", "split", "group"].filter((name) => by(name).value).map((name) => `"${name}" = ${quoted(by(name).value)}`);
  if (by("where").value.trim()) conditions.push(`(${by("where").value.trim()})`);
  const asked = { like: state.like, k: PAGE, fold: by("fold").checked };
  const text = by("text").value.trim();
  if (text) asked.text = text;
  if (state.picture) asked.picture = state.picture.data;
  if (by("less").value.trim()) asked.less = [by("less").value.trim()];
  if (conditions.length) asked.where = conditions.join(" and ");
  if (by("hybrid").checked && text) asked.by = "hybrid";
  const cutoff = Number(by("cutoff").value);
  if (by("cutoff").dataset.name) asked.cutoff = by("cutoff").dataset.name;
  else if (cutoff >= 0) asked.cutoff = cutoff;
  return asked;
}

async function search() {
  const asked = query();
  if (!asked.text && !asked.picture && !asked.like.length && !asked.less) return say("Type some words, or drop a picture.");
  const turn = ++state.asked;
  say("Searching …");
  const versions = [by("version-a").value, by("version-b").value].filter(Boolean).map(Number);
  try {
    const answers = await Promise.all(versions.map((version) =>
      ask("/api/search", { ...asked, version }).catch((error) => ({ version, error: error.message, hits: [], notes: [], milliseconds: 0 }))));
    if (turn !== state.asked) return; // a newer search is under way
    if (answers.every((answer) => answer.error)) throw new Error(answers[0].error);
    by("results").className = answers.length > 1 ? "two" : "";
    by("results").replaceChildren(...answers.map((answer) => shown(asked, answer, answers.length > 1)));
    const count = answers.map((answer) => answer.hits.length).join(" and ");
    const took = Math.max(...answers.map((answer) => answer.milliseconds));
    const time = took < 1000 ? `${Math.round(took)} ms` : `${(took / 1000).toFixed(1)} s`;
    say([`${count} hits in ${time}.`, ...new Set(answers.flatMap((answer) => answer.notes))].join(" "));
  } catch (error) {
    if (turn === state.asked) say(error.message, true);
  }
}

function shown(asked, answer, named) {
  const list = make("ol", { className: "grid" });
  list.append(...answer.hits.map((hit) => card(asked, answer.version, hit)));
  const section = make("section", { ariaLabel: `Hits of version ${answer.version}` });
  if (named) section.append(make("h2", { textContent: title(answer.version) }));
  section.append(list);
  if (!answer.hits.length) section.append(make("p", { textContent: answer.error || "No hits: lower the cutoff, or change the filter." }));
  if (answer.hits.length === PAGE) {
    const next = make("button", { className: "next", type: "button", textContent: "More hits" });
    next.onclick = async () => {
      next.disabled = true;
      try {
        const more = await ask("/api/search", { ...asked, version: answer.version, offset: list.children.length });
        list.append(...more.hits.map((hit) => card(asked, answer.version, hit)));
        next.hidden = more.hits.length < PAGE;
      } catch (error) {
        say(error.message, true);
      }
      next.disabled = false;
    };
    section.append(next);
  }
  return section;
}

function title(version) {
  const known = state.versions.find((each) => each.version === version);
  return known ? `${known.publish} · ${known.model}` : `version ${version}`;
}

function address(version, id) {
  return `/api/picture/${version}?id=${encodeURIComponent(id)}`;
}

function card(asked, version, hit) {
  const name = hit.caption || hit.id;
  const measured = hit.cosine === undefined ? "" : `cosine\u00a0${hit.cosine.toFixed(3)}`;
  const also = hit.folded ? ` · and ${hit.folded} nearly identical` : "";
  const item = make("li", { className: "hit" });
  item.dataset.id = hit.id;
  item.dataset.cosine = hit.cosine;
  const picture = make("img", { src: address(version, hit.id), alt: name, loading: "lazy" });
  const buttons = make("div", { className: "buttons" });
  for (const [right, sign, label] of [[true, "✓", "right"], [false, "✗", "wrong"]]) {
    const button = make("button", { type: "button", textContent: sign, className: label, ariaLabel: `${name}: ${label}`, ariaPressed: "false" });
    button.onclick = async () => {
      try {
        await ask("/api/judgements", { query: asked, id: hit.id, right, version });
        item.classList.toggle("right", right);
        item.classList.toggle("wrong", !right);
        for (const each of buttons.querySelectorAll("[aria-pressed]")) each.ariaPressed = String(each === button);
        counts();
      } catch (error) {
        say(error.message, true);
      }
    };
    buttons.append(button);
  }
  const like = make("button", { type: "button", className: "like", textContent: "More like this", ariaLabel: `More like ${name}` });
  like.onclick = () => {
    state.like = [hit.id];
    state.picture = null;
    by("text").value = "";
    by("less").value = "";
    chosen();
    search();
    by("results").focus();
  };
  buttons.append(like);
  item.append(picture, make("b", { textContent: name }), make("small", { textContent: `${hit.source} · ${measured}${also}` }),
    make("small", { textContent: `${hit.license}` }), buttons);
  return item;
}

function chosen() {
  const parts = [];
  const entry = (source, label, drop) => {
    const remove = make("button", { type: "button", textContent: "×", ariaLabel: `Remove ${label}` });
    remove.onclick = () => { drop(); chosen(); search(); };
    return make("span", {}, make("img", { src: source, alt: "" }), label, remove);
  };
  if (state.picture) parts.push(entry(state.picture.shown, state.picture.name, () => { state.picture = null; by("file").value = ""; }));
  for (const id of state.like) parts.push(entry(address(by("version-a").value, id), `like ${id}`, () => { state.like = []; }));
  by("chosen").replaceChildren(...parts);
}

function take(file) {
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => {
    state.picture = { name: file.name, data: reader.result.slice(reader.result.indexOf(",") + 1), shown: URL.createObjectURL(file) };
    state.like = [];
    chosen();
    search();
  };
  reader.onerror = () => say(`${file.name} cannot be read.`, true);
  reader.readAsDataURL(file);
}

function showCutoff() {
  const value = Number(by("cutoff").value);
  by("cutoff-shown").textContent = by("cutoff").dataset.name || (value < 0 ? "none" : `cosine ${value.toFixed(2)}`);
}

async function counts() {
  const found = Object.entries(await ask("/api/judgements"));
  by("judged").textContent = found.map(([model, each]) => `${model}: ${each.right} ✓ ${each.wrong} ✗`).join(" · ");
}

async function describe() {
  const told = await ask(`/api/table?version=${by("version-a").value}`);
  for (const name of ["source", "split", "group"]) {
    const before = by(name).value;
    by(name).replaceChildren(make("option", { value: "", textContent: "any" }), ...told.values[name].map((value) => make("option", { value, textContent: value })));
    if (told.values[name].includes(before)) by(name).value = before;
  }
  by("meaning").replaceChildren(...told.meaning.map((textContent) => make("li", { textContent })));
  for (const button of document.querySelectorAll("[data-cutoff]")) button.disabled = button.dataset.cutoff !== "none" && !told.meaning.length;
}

async function begin() {
  state.versions = await ask("/api/versions");
  const options = (none) => [...none, ...state.versions.map((each, place) =>
    make("option", { value: each.version, textContent: `${each.publish}${place ? "" : " (visible)"} · ${each.rows} rows` }))];
  by("version-a").replaceChildren(...options([]));
  by("version-b").replaceChildren(...options([make("option", { value: "", textContent: "nothing" })]));
  await describe();
  await counts();
}

by("ask").onsubmit = (event) => { event.preventDefault(); state.like = []; chosen(); search(); };
by("file").onchange = () => take(by("file").files[0]);
for (const id of ["source", "split", "group", "hybrid", "fold", "version-b"]) by(id).onchange = search;
by("version-a").onchange = async () => { await describe(); chosen(); search(); };
by("cutoff").oninput = () => { delete by("cutoff").dataset.name; showCutoff(); };
by("cutoff").onchange = search;
for (const button of document.querySelectorAll("[data-cutoff]")) {
  button.onclick = () => {
    const name = button.dataset.cutoff;
    if (name === "none") { delete by("cutoff").dataset.name; by("cutoff").value = -0.01; } else by("cutoff").dataset.name = name;
    showCutoff();
    search();
  };
}
document.addEventListener("dragover", (event) => { event.preventDefault(); by("drop").classList.add("over"); });
document.addEventListener("dragleave", () => by("drop").classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); by("drop").classList.remove("over"); take(event.dataTransfer.files[0]); });
begin().catch((error) => say(error.message, true));
