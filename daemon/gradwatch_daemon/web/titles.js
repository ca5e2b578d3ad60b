// What the signals that detectors read are called on a panel. A signal without a title here goes by its name.
export const TITLES = new Map(Object.entries({
  "obs.input.std": "Spread of the observations",
  "obs.input.nonfinite": "Observations not finite",
  "obs.input.saturation": "Observations at their bound",
  "obs.constant_share": "Features that stand still",
  "reward.step.mean": "Reward per step",
  "reward.step.nonfinite": "Rewards not finite",
  "reward.step.absmax": "Largest reward of a step",
  "value.target.std": "Spread of the returns",
  "value.explained_variance": "Explained variance",
  "value.error.rms": "Value error",
  "value.nmse": "Value error, 1 is a constant",
  "value.new.nonfinite": "Values not finite",
  "value.envelope": "Largest value by largest return",
  "value.spread": "Spread of values by that of returns",
  "adv.raw.std": "Spread of the advantages",
  "adv.used.nonfinite": "Advantages not finite",
  "adv.used.kurtosis": "Tails of the advantages",
  "policy.kl.k3": "KL (k3)",
  "policy.kl.k3.last": "KL (k3), last minibatch",
  "policy.kl.k2": "KL (k2)",
  "policy.kl.k3.sample_max": "KL (k3), worst sample",
  "policy.logratio.std": "Spread of the log ratio",
  "policy.logratio.nonfinite": "Ratios not finite",
  "policy.ratio.max": "Largest ratio",
  "policy.ratio.min": "Smallest ratio",
  "policy.ratio.tail_index": "Tail of the ratio",
  "policy.ratio.first_mb_dev": "Ratio before the first step",
  "policy.clip_fraction": "Clip fraction",
  "policy.entropy.norm": "Entropy, share of its most",
  "policy.std.min": "Smallest spread of an action",
  "policy.std.mean": "Spread of the actions",
  "loss.total": "Loss",
  "loss.total.nonfinite": "Losses not finite",
  "grad.norm.mean": "Gradient norm",
  "grad.norm.nonfinite": "Gradient norms not finite",
  "grad.clip_fraction": "Share of steps clipped",
  "grad.clip_limit": "Norm allowed",
  "grad.tensor_norm.min": "Smallest gradient of a tensor",
  "grad.tensor_norm.over_clip": "Largest gradient by norm allowed",
  "grad.vanishing.share": "Share of gradients that vanish",
  "grad.health": "Gradient health",
  "rnn.h.rms": "Recurrent state",
  "rnn.h.saturation": "Recurrent state saturated",
  "rnn.h.nonfinite": "Recurrent state not finite",
  "rnn.h.diversity": "Recurrent state, spread over sequences",
  "rnn.c.rms": "Cell state",
  "rnn.c.absmax": "Largest cell state",
  "rnn.reset.violations": "State not reset",
  "param.nonfinite": "Parameters not finite",
  "param.features.dormant": "Dormant units",
  "opt.steps": "Optimizer steps",
  "opt.skipped": "Optimizer steps skipped",
  "opt.lr": "Learning rate",
  "opt.adam.rms": "Gradient by Adam's second moment",
  "episode.return.mean": "Return",
  "episode.return.std": "Spread of returns",
  "episode.eval_return.mean": "Return of evaluations",
  "episode.count": "Episodes",
  "sys.update_ms": "Time of an update",
  "sys.host_bytes": "Memory of the trainer",
}));

export const titleOfSignal = (name) => TITLES.get(name) || name;

/** Signal → the one that is judged in its place in a run that does not send it, as the daemon does. */
export const STAND_INS = { "policy.kl.k3": "policy.kl.k3.last" };

/** The signal to show for this one, in a run that sends those. */
export const judged = (name, sent) => (!sent.has(name) && sent.has(STAND_INS[name]) ? STAND_INS[name] : name);

/** The signal whose rules judge this one, in a run that sends those. */
export const judgedAs = (name, sent) => Object.keys(STAND_INS).find((other) => STAND_INS[other] === name && !sent.has(other)) || name;
