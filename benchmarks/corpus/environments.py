"""Toy environments in numpy, all copies of one stepped together: what takes the time in a small trainer is Python, not physics.

Each copy resets by itself in the step that ends its episode. Dynamics of CartPole, Acrobot, MountainCar and Pendulum are those
of gymnasium's classic control (Barto, Sutton, Anderson 1983; Sutton 1996; Moore 1990), written anew for arrays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Discrete:
    """A gymnasium space of `n` actions, as far as trainers and the agent look at one."""

    n: int


@dataclass(frozen=True, slots=True)
class Box:
    """A gymnasium space of real actions of a shape, each from -1 to 1: what lies beyond is cut off."""

    shape: tuple[int, ...]

    @property
    def low(self) -> Floats:
        """Least."""
        return np.full(self.shape, -1.0)

    @property
    def high(self) -> Floats:
        """Largest."""
        return np.full(self.shape, 1.0)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of all copies gave. `final` is the observation before the reset, where `done`; elsewhere it is `obs`."""

    obs: NDArray[np.float32]
    reward: Floats
    terminated: Bools
    truncated: Bools
    final: NDArray[np.float32]

    @property
    def done(self) -> Bools:
        """Where an episode ended."""
        return self.terminated | self.truncated


class Environment:
    """`copies` of one environment. A subclass says how a state begins, moves and is seen; `state` is f64[copies, size]."""

    SPACE: ClassVar[Discrete | Box]
    OBSERVATIONS: ClassVar[int]
    LENGTH: ClassVar[int]
    """Steps after which an episode is cut off."""

    def __init__(self, copies: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.copies = copies
        self.state: Floats = self.begin(copies)
        self.length = self.LENGTH
        # Ages differ from the start, so that episodes of one length do not all end in the same update (Recall wants just that).
        self.age = self.random.integers(self.length, size=copies) if self.length > 24 else np.zeros(copies, np.int64)

    def begin(self, n: int) -> Floats:
        """First states of `n` episodes."""
        raise NotImplementedError

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """Advance `state`; returns reward and whether the task is over."""
        raise NotImplementedError

    def see(self) -> NDArray[np.float32]:
        """Observations f32[copies, OBSERVATIONS] of `state`."""
        return self.state.astype(np.float32)

    def step(self, action: NDArray[Any]) -> Step:
        """One step of every copy; a copy whose episode ended begins the next."""
        reward, terminated = self.move(action)
        self.age += 1
        truncated = (self.age >= self.length) & ~terminated
        done = terminated | truncated
        final = obs = self.see()
        if done.any():
            self.state[done] = self.begin(int(done.sum()))
            self.age[done] = 0
            obs = self.see()
        return Step(obs, reward, terminated, truncated, final)


class CartPole(Environment):
    """A pole on a cart, two actions, reward 1 a step for 200 steps."""

    SPACE, OBSERVATIONS, LENGTH = Discrete(2), 4, 200

    def begin(self, n: int) -> Floats:
        """Near upright."""
        return self.random.uniform(-0.05, 0.05, (n, 4))

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """Euler steps of 20 ms; force of 10 N either way, masses 1.0 and 0.1 kg, half length 0.5 m."""
        _, x_dot, theta, theta_dot = self.state.T
        cos, sin = np.cos(theta), np.sin(theta)
        push = (np.where(action == 1, 10.0, -10.0) + 0.05 * theta_dot**2 * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
        speed_up = push - 0.05 * turn * cos / 1.1
        self.state = self.state + 0.02 * np.stack([x_dot, speed_up, theta_dot, turn], 1)
        fallen = (np.abs(self.state[:, 0]) > 2.4) | (np.abs(self.state[:, 2]) > 12 * math.pi / 180)
        return np.ones(self.copies), fallen


class Acrobot(Environment):
    """Two links, a torque at the elbow; reward -1 a step until the tip is up."""

    SPACE, OBSERVATIONS, LENGTH = Discrete(3), 6, 500

    def begin(self, n: int) -> Floats:
        """Hanging."""
        return self.random.uniform(-0.1, 0.1, (n, 4))

    def see(self) -> NDArray[np.float32]:
        """Angles as cosine and sine."""
        one, two = self.state[:, 0], self.state[:, 1]
        parts = [np.cos(one), np.sin(one), np.cos(two), np.sin(two), self.state[:, 2], self.state[:, 3]]
        return np.stack(parts, 1).astype(np.float32)

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """One Runge-Kutta step of 0.2 s."""
        torque = action.astype(np.float64) - 1.0
        s, h = self.state, 0.2
        k1 = self._slope(s, torque)
        k2 = self._slope(s + h / 2 * k1, torque)
        k3 = self._slope(s + h / 2 * k2, torque)
        k4 = self._slope(s + h * k3, torque)
        s = s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        s[:, :2] = (s[:, :2] + math.pi) % (2 * math.pi) - math.pi
        s[:, 2] = s[:, 2].clip(-4 * math.pi, 4 * math.pi)
        s[:, 3] = s[:, 3].clip(-9 * math.pi, 9 * math.pi)
        self.state = s
        up = -np.cos(s[:, 0]) - np.cos(s[:, 1] + s[:, 0]) > 1.0
        return np.where(up, 0.0, -1.0), up

    @staticmethod
    def _slope(s: Floats, torque: Floats) -> Floats:
        """Unit masses and lengths, centres of mass at the middle, unit moments of inertia ("book" variant)."""
        one, two, one_dot, two_dot = s.T
        cos_two, sin_two = np.cos(two), np.sin(two)
        d1 = 3.5 + cos_two
        d2 = 1.25 + 0.5 * cos_two
        phi2 = 4.9 * np.sin(one + two)
        phi1 = -0.5 * two_dot**2 * sin_two - two_dot * one_dot * sin_two + 14.7 * np.sin(one) + phi2
        two_acc = (torque + d2 / d1 * phi1 - 0.5 * one_dot**2 * sin_two - phi2) / (1.25 - d2**2 / d1)
        one_acc = -(d2 * two_acc + phi1) / d1
        return np.stack([one_dot, two_dot, one_acc, two_acc], 1)


class MountainCar(Environment):
    """A car too weak for its hill; reward -1 a step. Without shaping PPO meets no reward signal at all."""

    SPACE, OBSERVATIONS, LENGTH = Discrete(3), 2, 200

    def begin(self, n: int) -> Floats:
        """In the valley."""
        return np.stack([self.random.uniform(-0.6, -0.4, n), np.zeros(n)], 1)

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """Position and speed, both bounded; a wall on the left."""
        place, speed = self.state.T
        speed = (speed + (action - 1) * 0.001 - 0.0025 * np.cos(3 * place)).clip(-0.07, 0.07)
        place = (place + speed).clip(-1.2, 0.6)
        speed = np.where((place <= -1.2) & (speed < 0), 0.0, speed)
        self.state = np.stack([place, speed], 1)
        return np.full(self.copies, -1.0), place >= 0.5


class Pendulum(Environment):
    """Swing up and hold; reward minus the squared error, from -16 to 0 a step."""

    SPACE, OBSERVATIONS, LENGTH = Box((1,)), 3, 200

    def begin(self, n: int) -> Floats:
        """Anywhere."""
        return self.random.uniform([-math.pi, -1.0], [math.pi, 1.0], (n, 2))

    def see(self) -> NDArray[np.float32]:
        """Angle as cosine and sine, speed."""
        angle = self.state[:, 0]
        return np.stack([np.cos(angle), np.sin(angle), self.state[:, 1]], 1).astype(np.float32)

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """Steps of 50 ms, torque bounded by 2."""
        angle, speed = self.state.T
        torque = 2.0 * action[:, 0].astype(np.float64).clip(-1.0, 1.0)
        wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
        cost = wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2
        speed = (speed + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05).clip(-8.0, 8.0)
        self.state = np.stack([angle + speed * 0.05, speed], 1)
        return -cost, np.zeros(self.copies, np.bool_)


class PointMass(Environment):
    """A mass on a plane, pushed towards the middle; reward minus the distance and a little for effort."""

    SPACE, OBSERVATIONS, LENGTH = Box((2,)), 4, 64
    reach = 1.0

    def begin(self, n: int) -> Floats:
        """At rest, anywhere in the square of half a side `reach`."""
        return np.concatenate([self.reach * self.random.uniform(-1.0, 1.0, (n, 2)), np.zeros((n, 2))], 1)

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """Steps of 0.1 s with some friction."""
        push = action.astype(np.float64).clip(-1.0, 1.0)
        speed = 0.9 * self.state[:, 2:] + 0.1 * push
        place = (self.state[:, :2] + 0.2 * speed).clip(-4.0, 4.0)
        self.state = np.concatenate([place, speed], 1)
        reward = -np.sqrt((place**2).sum(1)) - 0.01 * (push**2).sum(1)
        return reward, np.zeros(self.copies, np.bool_)


class Grid5(Environment):
    """Five by five cells, four moves, a goal in the last cell; reward 1 there, -0.01 a step."""

    SPACE, OBSERVATIONS, LENGTH = Discrete(4), 25, 50
    MOVES = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    STEP_REWARD = -0.01

    def begin(self, n: int) -> Floats:
        """Anywhere but the goal."""
        cell = self.random.integers(24, size=n)
        return np.stack([cell // 5, cell % 5], 1).astype(np.float64)

    def see(self) -> NDArray[np.float32]:
        """One-hot."""
        obs = np.zeros((self.copies, 25), np.float32)
        obs[np.arange(self.copies), (self.state[:, 0] * 5 + self.state[:, 1]).astype(np.int64)] = 1.0
        return obs

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """Walls hold."""
        self.state = (self.state + self.MOVES[action]).clip(0, 4)
        there = self.state.sum(1) == 8
        return np.where(there, 1.0, self.STEP_REWARD), there


class SparseGrid(Grid5):
    """The same with nothing to find: no reward at all, ever."""

    STEP_REWARD = 0.0

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """Reaching the goal pays nothing, too."""
        reward, there = super().move(action)
        return np.zeros_like(reward), there


class TwoState(Environment):
    """Two states; one action pays in each, and moves on. The optimal policy is deterministic and soon found."""

    SPACE, OBSERVATIONS, LENGTH = Discrete(2), 2, 20

    def begin(self, n: int) -> Floats:
        """Either."""
        return self.random.integers(2, size=(n, 1)).astype(np.float64)

    def see(self) -> NDArray[np.float32]:
        """One-hot."""
        return np.concatenate([1.0 - self.state, self.state], 1).astype(np.float32)

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """The action of the same number pays."""
        right = action == self.state[:, 0]
        self.state = np.where(right[:, None], 1.0 - self.state, self.state)
        return right.astype(np.float64), np.zeros(self.copies, np.bool_)


class Recall(Environment):
    """A cue is shown once, blank steps follow, a go signal asks which it was; reward 1 for the cue. Only memory solves it."""

    SPACE, OBSERVATIONS, LENGTH = Discrete(4), 5, 24
    CUES, DELAY_MAX = 4, 2

    def begin(self, n: int) -> Floats:
        """State is (cue, steps to wait, whether the cue is shown)."""
        cue, wait = self.random.integers(self.CUES, size=n), self.random.integers(1, self.DELAY_MAX + 1, size=n)
        return np.stack([cue, wait, np.ones(n)], 1).astype(np.float64)

    def see(self) -> NDArray[np.float32]:
        """The cue as one-hot while it is shown, and the go signal."""
        obs = np.zeros((self.copies, self.CUES + 1), np.float32)
        shown = np.flatnonzero(self.state[:, 2])
        obs[shown, self.state[shown, 0].astype(np.int64)] = 1.0
        obs[:, -1] = self.state[:, 1] == 0
        return obs

    def move(self, action: NDArray[Any]) -> tuple[Floats, Bools]:
        """The answer is the action at the go signal; all others do nothing."""
        asked = self.state[:, 1] == 0
        reward = (asked & (action == self.state[:, 0])).astype(np.float64)
        self.state = np.stack([self.state[:, 0], self.state[:, 1] - 1, np.zeros(self.copies)], 1)
        if asked.any():
            self.state[asked] = self.begin(int(asked.sum()))
        return reward, np.zeros(self.copies, np.bool_)


ENVIRONMENTS: dict[str, type[Environment]] = {
    kind.__name__: kind for kind in (CartPole, Acrobot, MountainCar, Pendulum, PointMass, Grid5, SparseGrid, TwoState, Recall)
}
"""Name → environment, as the table of cases names them."""
