// What to ask a model for, where nobody has said anything yet.

/** What any model of its kind can draw. */
const USUAL = [
  "A lighthouse at dusk, long exposure, calm sea",
  "An old bookshop on a rainy street, warm light in the windows",
  "A red circle on a blue background",
  "Macro photograph of dew on a spider's web, morning sun",
];
/** Of those that know less than that, by their slugs. @type {{[slug: string]: string[]}} */
const OF_THEIR_OWN = {
  "demo-4step": [
    "A red circle on a blue background",
    "A small yellow star above a green square",
    "A big pink heart on a striped background",
    "A white moon in the top left, at night",
  ],
};

/** @param {string} slug */
export const examplesFor = (slug) => OF_THEIR_OWN[slug] ?? USUAL;
