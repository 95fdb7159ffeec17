"""The variance that a stochastic solver gives to Gaussian data on a finite grid: its own linear recursion, from its paper.

On data N(0, c) every denoiser is linear, x0_hat = k x, so a step is a linear map of what the solver holds, plus noise. The
recursions carry the covariance of what is held (x, mostly with the last estimates of x0) and use numpy alone.
"""

import numpy as np

BETA_MIN, BETA_MAX = 0.1, 20.0


def gain(alpha, sigma, c):
    """k of E[x_0 | x] = k x."""
    return alpha * c / (alpha**2 * c + sigma**2)


def only_x(a, variance):
    """The map of the state in which x becomes a x plus noise, and nothing else is held."""
    return np.diag([a, 0.0, 0.0, 0.0, 0.0]), noise_of_x(variance)


def noise_of_x(variance):
    return np.diag([variance, 0.0, 0.0, 0.0, 0.0])


def ddim(eta, zeta=0.0):
    """DDIM's step with a share zeta of its noise, and of its estimate's, drawn anew as in DiffPIR's alg. 1."""

    def step(t, s, c, i):
        (a, sig), (b, r) = t[:2], s[:2]
        bridge = sig**2 - (a / b) ** 2 * r**2
        std = eta * np.sqrt(bridge) * r / sig
        k = gain(a, sig, c)
        kept = np.sqrt(1 - zeta) * np.sqrt(r**2 - std**2)
        return only_x(b * k + kept * (1 - a * k) / sig, (1 - zeta) * std**2 + zeta * r**2)

    return step


def ancestral(variance):
    """DDPM's kernel with the posterior's, the transition's, or the optimal variance, without noise at the end."""

    def step(t, s, c, i):
        (a, sig), (b, r) = t[:2], s[:2]
        bridge = sig**2 - (a / b) ** 2 * r**2
        lower, b_x0 = bridge * r**2 / sig**2, b * bridge / sig**2
        uncertainty = c * sig**2 / (a**2 * c + sig**2)  # of x_0 given x
        add = {"posterior": lower, "upper": bridge, "optimal": lower + b_x0**2 * uncertainty}[variance]
        return only_x(b_x0 * gain(a, sig, c) + (a / b) * r**2 / sig**2, add * (r > 0))

    return step


def reverse_diffusion(t, s, c, i):
    (a, sig), (b, r) = t[:2], s[:2]
    squared = sig**2 - (a / b) ** 2 * r**2
    return only_x(2 - a / b - squared / (a**2 * c + sig**2), squared * (r > 0))


def euler_maruyama(t, s, c, i):
    """dx = [-beta x / 2 + beta x / (alpha^2 c + sigma^2)] dt backwards, plus sqrt(beta) dw, of the VP SDE."""
    a, sig, time = t
    if s[1] == 0:
        return only_x(gain(a, sig, c), 0.0)
    beta, dt = BETA_MIN + time * (BETA_MAX - BETA_MIN), time - s[2]
    return only_x(1 + (0.5 * beta - beta / (a**2 * c + sig**2)) * dt, beta * dt)


def exploding(step):
    """A step written for y = x / alpha and rho = sigma / alpha, as one of x."""

    def whole(t, s, c, i):
        a, variance = step(t[1] / t[0], s[1] / s[0], c, i)
        return only_x(a * s[0] / t[0], variance * s[0] ** 2)

    return whole


def slope(rho, c):
    """dy / d rho = slope y."""
    return rho / (c + rho**2)


def split(rho, rho_s):
    """k-diffusion's (sigma_down, sigma_up) at eta = 1."""
    up = np.sqrt(rho_s**2 * (rho**2 - rho_s**2) / rho**2)
    return np.sqrt(rho_s**2 - up**2), up


@exploding
def dpm2_ancestral(rho, rho_s, c, i):
    down, up = split(rho, rho_s)
    if down == 0:
        return 1 - rho * slope(rho, c), 0.0
    middle = np.sqrt(rho * down)
    return 1 + (down - rho) * slope(middle, c) * (1 + (middle - rho) * slope(rho, c)), up**2


@exploding
def dpmpp_2s_ancestral(rho, rho_s, c, i):
    down, up = split(rho, rho_s)
    estimate = lambda rho: c / (c + rho**2)  # noqa: E731
    if down == 0:
        return estimate(rho), 0.0
    middle = np.sqrt(rho * down)
    inner = middle / rho + (1 - middle / rho) * estimate(rho)
    return down / rho + (1 - down / rho) * estimate(middle) * inner, up**2


def edm_heun(amount, low, high, noise, steps):
    @exploding
    def step(rho, rho_s, c, i):
        gamma = min(amount / steps, np.sqrt(2) - 1) if low <= rho <= high else 0.0
        hat = rho * (1 + gamma)
        first = 1 + (rho_s - hat) * slope(hat, c)
        a = first if rho_s == 0 else 1 + (rho_s - hat) / 2 * (slope(hat, c) + slope(rho_s, c) * first)
        return a, a**2 * noise**2 * (hat**2 - rho**2)

    return step


def sde_dpm_solver(eta, order, variant):
    """SDE-DPM-Solver++ in half log-SNR: k-diffusion's dpmpp_2m_sde and dpmpp_3m_sde; `order3` doubles the last term."""
    past = []

    def step(t, s, c, i):
        if i == 0:
            past.clear()
        (a, sig), (b, r) = t[:2], s[:2]
        past.insert(0, np.log(a / sig))
        k = gain(a, sig, c)
        if r == 0:
            return only_x(b * k, 0.0)
        h = np.log(b / r) - past[0]
        H = h * (1 + eta)
        m = np.zeros((5, 5))  # rows: the new (x, m1, m2) of the old; m0 = k x
        main, p2 = -np.expm1(-H), np.expm1(-H) / H + 1
        p3 = p2 / H - 0.5
        w0, w1, w2 = main, 0.0, 0.0
        if i >= 1:
            r0 = (past[0] - past[1]) / h
            if i == 1 or order == 2:
                q = (0.5 * main if variant == "midpoint" else p2) / r0
                w0, w1 = w0 + q, -q
            else:
                r1 = (past[1] - past[2]) / h
                for weight, (d0, d1) in ((p2, (1 + r0 / (r0 + r1), -r0 / (r0 + r1))),
                                         (-p3 * (2 if variant == "order3" else 1), (1 / (r0 + r1), -1 / (r0 + r1)))):  # fmt: skip
                    w0, w1, w2 = w0 + weight * d0 / r0, w1 - weight * d0 / r0 + weight * d1 / r1, w2 - weight * d1 / r1
        m[0, :3] = r / sig * np.exp(-eta * h) + b * w0 * k, b * w1, b * w2
        m[1, 0], m[2, 1] = k, 1.0
        return m, noise_of_x(r**2 * -np.expm1(-2 * eta * h))

    return step


def sa_solver(tau):
    """SA-Solver with two estimates and its corrector: holds (x, the corrected x before, m1, m2, the last step's noise)."""
    past = []

    def polynomial(start, h, nodes):
        """Weights of the estimates at half log-SNRs `nodes`: int (1 + tau^2) e^{-(1 + tau^2)(1 - u) h} h P(u) du, by quadrature."""
        at, mass = np.polynomial.legendre.leggauss(40)
        u, rate = (at + 1) / 2, (1 + tau**2) * h
        kernel = mass / 2 * rate * np.exp(-rate * (1 - u))
        places = (np.asarray(nodes) - start) / h
        basis = [np.prod([(u - q) / (p - q) for j, q in enumerate(places) if j != i], axis=0) * np.ones_like(u)
                 for i, p in enumerate(places)]  # fmt: skip
        return np.asarray([kernel @ b for b in basis])

    def step(t, s, c, i):
        if i == 0:
            past.clear()
        (a, sig), (b, r) = t[:2], s[:2]
        past.insert(0, (np.log(a / sig), a, sig))
        k = gain(a, sig, c)
        x, m0, m1, m2 = np.eye(5)[0], k * np.eye(5)[0], np.eye(5)[2], np.eye(5)[3]
        if i > 0:  # the step that led here, again, with the estimate made here
            (now, a, sig), (start, _, sig_0) = past[:2]
            weights = polynomial(start, now - start, [now, start] + [p[0] for p in past[2:3]])
            x = sig / sig_0 * np.exp(-(tau**2) * (now - start)) * np.eye(5)[1] + np.eye(5)[4]
            x = x + a * sum(w * m for w, m in zip(weights, (m0, m1, m2), strict=False))
        if r == 0:
            return np.stack([b * m0, x, m0, m1, 0 * x]), np.zeros((5, 5))
        h = np.log(b / r) - past[0][0]
        weights = polynomial(past[0][0], h, [p[0] for p in past[:2]])
        new = r / sig * np.exp(-(tau**2) * h) * x + b * sum(w * m for w, m in zip(weights, (m0, m1), strict=False))
        drawn = np.zeros(5)
        drawn[[0, 4]] = r * np.sqrt(-np.expm1(-2 * tau**2 * h))
        return np.stack([new, x, m0, m1, 0 * x]), np.outer(drawn, drawn)

    return step


def langevin(step_size, inner):
    """DDIM, then Langevin steps at s (not at sigma = 0)."""

    def step(t, s, c, i):
        m, _ = ddim(0.0)(t, s, c, i)
        a, variance = m[0, 0], 0.0
        if s[1] > 0:
            shrink, add = 1 - step_size * s[1] ** 2 / (s[0] ** 2 * c + s[1] ** 2), 2 * step_size * s[1] ** 2
            for _ in range(inner):
                a, variance = shrink * a, shrink**2 * variance + add
        return only_x(a, variance)

    return step


def variance(step, levels, c, start):
    """Var(x) at the end of the walk along `levels`, of data of variance c, from Var(x) = start."""
    alpha, sigma, time = (np.asarray(f, np.float64) for f in (levels.alpha, levels.sigma, levels.t))
    covariance = np.zeros((5, 5))
    covariance[0, 0] = start
    for i in range(len(alpha) - 1):
        m, noise = step((alpha[i], sigma[i], time[i]), (alpha[i + 1], sigma[i + 1], time[i + 1]), c, i)
        covariance = m @ covariance @ m.T + noise
    return covariance[0, 0]
