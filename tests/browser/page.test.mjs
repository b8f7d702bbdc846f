// What a person does on the page, and what the page must never do: against the mock predictor, whose steps take as long as
// they are told to. In the order of a visit, for the later ones find in the history what the earlier ones drew.

import "./running.mjs";
import "./input.mjs";
import "./refusals.mjs";
import "./history.mjs";
import "./snippets.mjs";
import "./reference.mjs";
import "./views.mjs";
import "./speed.mjs";
