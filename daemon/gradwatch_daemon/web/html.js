// What every component is written with: tagged templates over Preact, its hooks, and signals. The only door to vendor/ but for
// the charts.
import { h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { h, render };
export { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useId } from "./vendor/hooks.js";
export { batch, computed, effect, signal, useSignal, useComputed } from "./vendor/signals.js";
