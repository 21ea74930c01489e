// A run's report: its curves, and the slider through its sample grids.

import { Chart, smooth } from "./chart.js";

const told = JSON.parse(document.getElementById("curves").textContent);

for (const figure of document.querySelectorAll("[data-chart]")) {
  const { lines, ...options } = told[figure.dataset.chart];
  const drawn = lines.flatMap((line) => {
    const colour = line.colour ?? 0;
    if (!line.mean || line.x.length < 8) return [{ ...line, colour }];
    const y = smooth(line.y, 1 - 2 / (1 + Math.max(2, line.x.length / 20)));
    return [{ ...line, colour, faint: true }, { label: `${line.label}, running mean`, x: line.x, y, colour }];
  });
  new Chart(figure).show(drawn, options);
}

for (const film of document.querySelectorAll(".film")) {
  const frames = [...film.querySelectorAll("img")];
  const slider = film.querySelector("input");
  const place = film.querySelector("output");
  const play = film.querySelector("button");
  let timer = null;

  const show = () => {
    frames.forEach((frame, i) => (frame.hidden = i !== slider.valueAsNumber));
    place.textContent = `step ${Number(frames[slider.valueAsNumber].dataset.step).toLocaleString("en")}`;
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const go = () => {
    if (slider.valueAsNumber === frames.length - 1) slider.value = 0;
    show();
    play.textContent = "Stop";
    timer = setInterval(() => {
      slider.value = slider.valueAsNumber + 1;
      show();
      if (slider.valueAsNumber === frames.length - 1) stop();
    }, 700);
  };
  film.querySelector(".controls").hidden = frames.length < 2;
  slider.addEventListener("input", () => (stop(), show()));
  play.addEventListener("click", () => (timer === null ? go() : stop()));
  show();
}
