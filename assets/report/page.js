"use strict";
document.documentElement.classList.add("js");

// Query browser: of each set one query at a time; without this script all of them stand below each other.
for (const browser of document.querySelectorAll(".browser")) {
  const sets = [...browser.querySelectorAll(".set")];
  const buttons = [...browser.querySelectorAll(".switch button")];
  const showSet = (chosen) => {
    sets.forEach((set, number) => { set.hidden = number !== chosen; });
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(number === chosen)));
  };
  buttons.forEach((button, number) => button.addEventListener("click", () => showSet(number)));
  for (const set of sets) {
    const links = [...set.querySelectorAll(".chooser a")];
    const cards = [...set.querySelectorAll(".query")];
    const show = (chosen) => {
      cards.forEach((card, number) => { card.hidden = number !== chosen; });
      links.forEach((link, number) => link.setAttribute("aria-current", String(number === chosen)));
    };
    links.forEach((link, number) => {
      link.addEventListener("click", (event) => { event.preventDefault(); show(number); });
      link.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const next = links[number + step];
        if (!step || !next) return;
        event.preventDefault();
        next.focus();
        next.scrollIntoView({ block: "nearest", inline: "nearest" });
        show(links.indexOf(next));
      });
    });
    show(0);
  }
  showSet(0);
}

// Map of the embedding: a point an image, under a pointer, a finger or the arrow keys its picture and those of its class.
for (const figure of document.querySelectorAll(".map")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const sheet = figure.querySelector("img.sheet");
  const plane = figure.querySelector("canvas.plane");
  const tip = figure.querySelector(".tip");
  const drawing = plane.getContext("2d");
  const small = tip.querySelector("canvas").getContext("2d");
  const side = Number(figure.dataset.side);
  const count = data.spaces.length;
  const classOf = (point) => data.points[point][2 * count];
  const groupOf = (point) => data.classes[classOf(point)][1];
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const MARGIN = 22, NEAR = 26, STEPS = [1, 2, 4, 8];
  const state = { space: count - 1, from: count - 1, mix: 1, pictures: false, group: null, found: null, active: -1, zoom: 1, x: 0.5, y: 0.5 };
  let width = 0, height = 0;

  const place = (point) => {
    const at = (space, axis) => data.points[point][2 * space + axis] / data.extent;
    const mixed = (axis) => at(state.from, axis) * (1 - state.mix) + at(state.space, axis) * state.mix;
    return [
      width / 2 + (mixed(0) - state.x) * state.zoom * (width - 2 * MARGIN),
      height / 2 + (mixed(1) - state.y) * state.zoom * (height - 2 * MARGIN),
    ];
  };
  const picture = (target, point, x, y, size) => {
    target.drawImage(sheet, (point % data.abreast) * side, Math.floor(point / data.abreast) * side, side, side, x, y, size, size);
  };
  const lit = (point) =>
    (state.group === null || groupOf(point) === state.group) && (state.found === null || state.found.has(classOf(point)));

  const draw = () => {
    const scale = devicePixelRatio || 1;
    width = plane.clientWidth;
    height = plane.clientHeight;
    plane.width = width * scale;
    plane.height = height * scale;
    drawing.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const colors = data.groups.map((_, group) => color(`--group-${group}`));
    const places = data.points.map((_, point) => place(point));
    const size = Math.min(64, 18 * Math.sqrt(state.zoom) * (width < 500 ? 0.8 : 1));
    const one = (point) => {
      const [x, y] = places[point];
      if (x < -40 || y < -40 || x > width + 40 || y > height + 40) return;
      if (state.pictures) {
        drawing.fillStyle = "#fff";
        drawing.fillRect(x - size / 2 - 1, y - size / 2 - 1, size + 2, size + 2);
        picture(drawing, point, x - size / 2, y - size / 2, size);
      } else {
        drawing.fillStyle = colors[groupOf(point)] || color("--group-9");
        drawing.beginPath();
        drawing.arc(x, y, width < 500 ? 3 : 4, 0, 7);
        drawing.fill();
      }
    };
    const points = data.points.keys();
    const [bright, dim] = [[], []];
    for (const point of points) (lit(point) ? bright : dim).push(point);
    drawing.globalAlpha = 0.12;
    dim.forEach(one);
    drawing.globalAlpha = state.pictures ? 1 : 0.82;
    bright.forEach(one);
    drawing.globalAlpha = 1;
    if (state.active >= 0) {
      const [x, y] = places[state.active];
      const siblings = [...data.points.keys()].filter((point) => classOf(point) === classOf(state.active));
      drawing.strokeStyle = color("--ink");
      drawing.lineWidth = 1;
      for (const point of siblings) {
        drawing.beginPath();
        drawing.moveTo(x, y);
        drawing.lineTo(...places[point]);
        drawing.stroke();
      }
      for (const point of siblings) {
        const [left, above] = places[point];
        drawing.fillStyle = "#fff";
        drawing.fillRect(left - 14, above - 14, 28, 28);
        picture(drawing, point, left - 13, above - 13, 26);
        drawing.lineWidth = point === state.active ? 3 : 1.5;
        drawing.strokeRect(left - 14, above - 14, 28, 28);
      }
    }
  };

  const tell = () => {
    tip.hidden = state.active < 0;
    if (state.active < 0) return;
    const [name, group] = data.classes[classOf(state.active)];
    small.fillStyle = "#fff";
    small.fillRect(0, 0, 144, 144);
    small.imageSmoothingQuality = "high";
    picture(small, state.active, 0, 0, 144);
    const siblings = data.points.filter((point) => point[2 * count] === classOf(state.active)).length;
    tip.querySelector("b").textContent = name;
    tip.querySelector("span").textContent =
      [data.groups[group], `${siblings} of its class here`, data.sources[data.points[state.active][2 * count + 1]]].filter(Boolean).join(" · ");
    const [x, y] = place(state.active);
    if (width < 500) { // no room beside the point
      tip.style.left = "4px";
      tip.style.top = y > height / 2 ? "4px" : `${height - tip.offsetHeight - 4}px`;
      return;
    }
    const right = x + 24 + tip.offsetWidth < width ? x + 24 : x - 24 - tip.offsetWidth;
    tip.style.left = `${Math.max(4, Math.min(right, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(y - tip.offsetHeight / 2, height - tip.offsetHeight - 4))}px`;
  };
  const choose = (point) => {
    if (point === state.active) return;
    state.active = point;
    draw();
    tell();
  };
  const nearest = (x, y, allowed, reach) => {
    let best = -1, least = reach ** 2;
    data.points.forEach((_, point) => {
      if (!lit(point) || !allowed(point)) return;
      const [left, above] = place(point);
      const distance = (left - x) ** 2 + (above - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    });
    return best;
  };
  const zoomTo = (zoom, x, y) => {
    state.zoom = zoom;
    const room = 0.5 / zoom;
    state.x = Math.max(room, Math.min(1 - room, x));
    state.y = Math.max(room, Math.min(1 - room, y));
    plane.style.touchAction = zoom > 1 ? "none" : "pan-y";
    draw();
    tell();
  };
  const zoomBy = (step) => {
    const next = STEPS[STEPS.indexOf(state.zoom) + step];
    if (!next) return;
    const at = (axis) => data.points[state.active][2 * state.space + axis] / data.extent;
    if (state.active >= 0) zoomTo(next, at(0), at(1));
    else zoomTo(next, state.x, state.y);
  };

  let dragged = null;
  const inside = (event) => {
    const box = plane.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  plane.addEventListener("pointerdown", (event) => {
    dragged = [event.clientX, event.clientY];
    choose(nearest(...inside(event), () => true, 2 * NEAR));
  });
  plane.addEventListener("pointermove", (event) => {
    if (dragged && state.zoom > 1 && event.buttons) {
      const [dx, dy] = [event.clientX - dragged[0], event.clientY - dragged[1]];
      dragged = [event.clientX, event.clientY];
      zoomTo(state.zoom, state.x - dx / state.zoom / (width - 2 * MARGIN), state.y - dy / state.zoom / (height - 2 * MARGIN));
    } else if (event.pointerType === "mouse") {
      choose(nearest(...inside(event), () => true, NEAR));
    }
  });
  addEventListener("pointerup", () => { dragged = null; });
  plane.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && document.activeElement !== plane) choose(-1); });
  plane.addEventListener("keydown", (event) => {
    const heading = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (heading) {
      event.preventDefault();
      const [x, y] = state.active >= 0 ? place(state.active) : [width / 2, height / 2];
      const ahead = (point) => {
        const [left, above] = place(point);
        const along = (left - x) * heading[0] + (above - y) * heading[1];
        return point !== state.active && along > 0 && along >= Math.abs((left - x) * heading[1] + (above - y) * heading[0]);
      };
      const next = nearest(x, y, state.active >= 0 ? ahead : () => true, Infinity);
      if (next >= 0) choose(next);
    } else if (event.key === "+" || event.key === "=") zoomBy(1);
    else if (event.key === "-") zoomBy(-1);
    else if (event.key === "Escape") { zoomTo(1, 0.5, 0.5); choose(-1); }
  });

  const pressed = (buttons, chosen) => buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === chosen)));
  const spaces = [...figure.querySelectorAll("[data-space]")];
  for (const button of spaces) button.addEventListener("click", () => {
    const begun = performance.now();
    [state.from, state.space] = [state.space, Number(button.dataset.space)];
    pressed(spaces, button);
    choose(-1);
    const step = (now) => {
      const share = still.matches ? 1 : Math.min(1, Math.max(0, now - begun) / 900);
      state.mix = share * share * (3 - 2 * share);
      draw();
      if (share < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  });
  const looks = [...figure.querySelectorAll("[data-look]")];
  for (const button of looks) button.addEventListener("click", () => {
    state.pictures = button.dataset.look === "pictures";
    pressed(looks, button);
    draw();
  });
  for (const button of figure.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => zoomBy(Number(button.dataset.zoom)));
  const groups = [...figure.querySelectorAll("[data-group]")];
  for (const button of groups) button.addEventListener("click", () => {
    const group = Number(button.dataset.group);
    state.group = state.group === group ? null : group;
    pressed(groups, state.group === null ? null : button);
    choose(-1);
    draw();
  });
  const find = figure.querySelector("input");
  const said = figure.querySelector("output");
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    const matching = [...data.classes.keys()].filter((number) => data.classes[number][0].toLowerCase().includes(wanted));
    state.found = wanted ? new Set(matching) : null;
    said.textContent = wanted ? `${matching.length} classes` : "";
    choose(-1);
    draw();
  });

  new ResizeObserver(draw).observe(plane);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", draw);
  sheet.decode().then(draw, draw);
}
