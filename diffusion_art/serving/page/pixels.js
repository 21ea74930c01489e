// Small pictures shown large, and the noise that they begin as.

const SMOOTH_FROM_PX = 160; // pictures of this side and more are scaled as photographs are

/**
 * Show `shown` (an img or a canvas) about `targetPx` wide: a small picture by a whole number of the screen's own pixels
 * for each of its pixels, so that all of them come out equal and sharp.
 */
export function fit(shown, targetPx, sidePx = shown.naturalWidth || shown.width) {
  shown.classList.toggle("crisp", sidePx < SMOOTH_FROM_PX);
  shown.style.width = `${fitted(targetPx, sidePx)}px`;
}

/** How wide a picture of this side is shown where there is room for `targetPx`. */
export function fitted(targetPx, sidePx) {
  const perCss = window.devicePixelRatio || 1;
  const factor = Math.max(1, Math.floor((targetPx * perCss) / sidePx));
  return sidePx < SMOOTH_FROM_PX ? (factor * sidePx) / perCss : Math.min(targetPx, sidePx * 2);
}

/** How wide a picture is shown that is to stay within this width and this height. */
export const widthWithin = (image, widthPx, heightPx) => Math.min(widthPx, (heightPx * image.naturalWidth) / image.naturalHeight);

/** A canvas of the noise a picture of this seed might start from: for the eye, not the very numbers. */
export function noise(seed, sidePx) {
  const side = Math.min(sidePx, 64);
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  canvas.setAttribute("aria-hidden", "true");
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(side, side);
  const random = uniform(seed);
  for (let i = 0; i < image.data.length; i += 4) {
    const grey = 128 + 34 * normal(random);
    for (let c = 0; c < 3; c++) image.data[i + c] = grey + 22 * normal(random);
    image.data[i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

/** The picture as a PNG of at least `leastPx`, each pixel a square: for a wall or a slide. */
export async function enlarged(src, leastPx = 1024) {
  const image = new Image();
  image.src = src;
  await image.decode();
  const factor = Math.max(1, Math.ceil(leastPx / image.naturalWidth));
  const canvas = document.createElement("canvas");
  canvas.width = image.naturalWidth * factor;
  canvas.height = image.naturalHeight * factor;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = image.naturalWidth >= SMOOTH_FROM_PX;
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

export const dataUrl = (base64) => `data:image/png;base64,${base64}`;

export function blobOf(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A linear congruential generator (Numerical Recipes, 3rd ed., 7.1): numbers in (0, 1). */
function uniform(seed) {
  let state = (seed * 2654435761 + 1013904223) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
}

const normal = (random) => Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random()); // Box & Muller 1958
