from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.cross_decomposition import CCA
from torch import Tensor

from cm2.errors import ConfigError, DataError
from cm2.fuse.copula.joint import JointModel
from cm2.fuse.copula.mixture import Mixture
from cm2.fuse.copula.whitening import CopulaSpace


def embeddings(n: int, D: int, seed: int = 0) -> Tensor:
    """Two modalities with correlated coordinates, scales and a shared part."""
    g = torch.Generator().manual_seed(seed)
    shared = torch.randn(n, 1, 3, generator=g, dtype=torch.float64)
    mix = torch.randn(2, 3 + D, D, generator=g, dtype=torch.float64)
    noise = torch.randn(n, 2, D, generator=g, dtype=torch.float64)
    parts = torch.cat([1.5 * shared.expand(n, 2, 3), noise], -1)
    return torch.einsum("nmi,mid->nmd", parts, mix) + 5.0


@pytest.mark.parametrize("D_c", [4, 8])
def test_coordinates_are_white_on_the_rows_of_the_pass(D_c: int) -> None:
    z = embeddings(500, 8)
    available = torch.rand(500, 2, generator=torch.Generator().manual_seed(1)) > 0.3
    z[~available] = float("nan")
    space = CopulaSpace(2, 8, D_c, shrinkage=0.0).double()
    space.update(z, available)
    for m in range(2):
        w = space(z)[available[:, m], m]
        assert w.mean(0).abs().max() < 1e-10
        assert (w.T @ w / len(w) - torch.eye(D_c)).abs().max() < 1e-8


def test_repeated_passes_never_flip_or_rotate_an_axis() -> None:
    z = embeddings(500, 8)
    everyone = torch.ones(500, 2, dtype=torch.bool)
    space = CopulaSpace(2, 8, 4).double()
    space.update(z, everyone)
    before = space(z)
    space.update(z + 0.01 * torch.randn_like(z), everyone)
    assert (space(z) - before).abs().max() < 0.05


def test_decoder_is_the_regression_of_the_embedding_on_its_coordinates() -> None:
    z = embeddings(400, 8)
    space = CopulaSpace(2, 8, 4, shrinkage=1e-2).double()
    space.update(z, torch.ones(400, 2, dtype=torch.bool))
    w = space(z).detach()
    for m in range(2):
        design = np.column_stack([np.ones(400), w[:, m].numpy()])
        fit = design @ np.linalg.lstsq(design, z[:, m].numpy(), rcond=None)[0]
        assert np.allclose(space.decode(w)[:, m].numpy(), fit, atol=1e-5)


def test_full_width_decodes_without_loss() -> None:
    z = embeddings(400, 6)
    space = CopulaSpace(2, 6, 6).double()
    assert torch.allclose(space.decode(space(z)), z)  # before any pass too
    space.update(z, torch.ones(400, 2, dtype=torch.bool))
    assert torch.allclose(space.decode(space(z)), z, atol=1e-6)


def test_gradient_reaches_projection_and_embedding_but_no_statistic() -> None:
    space = CopulaSpace(2, 8, 4)
    z = embeddings(100, 8).float().requires_grad_()
    space.update(z, torch.ones(100, 2, dtype=torch.bool))
    assert {name for name, _ in space.named_parameters()} == {"projection"}
    space.decode(space(z)).square().sum().backward()
    assert space.projection is not None
    assert space.projection.grad is not None
    assert space.projection.grad.abs().min() > 0
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


def test_gradient_may_follow_the_statistics_without_changing_a_value() -> None:
    z = embeddings(200, 6)
    available = torch.rand(200, 2, generator=torch.Generator().manual_seed(2)) > 0.3
    space = CopulaSpace(2, 6, 6, shrinkage=0.0).double()
    space.update(z, available)
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(200, 2, 6, generator=generator, dtype=torch.float64)
    hidden = torch.where(available.unsqueeze(-1), z, float("nan")).requires_grad_()
    w = space(hidden, available)
    assert torch.allclose(w[available], space(z)[available], atol=1e-12)
    assert not w[~available].any()
    (found,) = torch.autograd.grad((w * weights).sum() + w.pow(3).sum(), hidden)
    # the same function written out: whitening by the rows' own mean and covariance
    for m in range(2):
        rows = z[available[:, m], m].requires_grad_()
        centred = rows - rows.mean(0)
        factor = torch.linalg.cholesky(centred.T @ centred / len(rows))
        own = torch.linalg.solve_triangular(factor, centred.T, upper=False).T
        value = (own * weights[available[:, m], m]).sum() + own.pow(3).sum()
        (expected,) = torch.autograd.grad(value, rows)
        assert torch.allclose(found[available[:, m], m], expected, atol=1e-6)
        assert not found[~available[:, m], m].any()


def test_spaces_equal_their_loop_under_vmap_and_grad() -> None:
    spaces = [CopulaSpace(2, 6, 3, seed=seed).double() for seed in (0, 1)]
    z = torch.stack([embeddings(40, 6, seed) for seed in (0, 1)])
    available = torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(0)) > 0.3
    for space, rows, there in zip(spaces, z, available, strict=True):
        space.update(rows, there)
    state, buffers = torch.func.stack_module_state(spaces)  # type: ignore[arg-type]

    def loss(state: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Tensor) -> Tensor:
        w: Tensor = torch.func.functional_call(spaces[0], (state, buffers), inputs)
        return w.pow(3).sum()

    gradient = torch.func.grad(loss, argnums=(0, 2))
    mapped = torch.func.vmap(gradient)(state, buffers, z, available)
    for e in range(2):
        one = [{k: v[e] for k, v in part.items()} for part in (state, buffers)]
        single = gradient(*one, z[e], available[e])
        assert torch.allclose(mapped[1][e], single[1], rtol=1e-9)
        assert torch.allclose(mapped[0]["projection"][e], single[0]["projection"], rtol=1e-9)


def test_collapsed_embedding_stays_finite() -> None:
    space = CopulaSpace(2, 8, 4)
    z = torch.ones(50, 2, 8)
    space.update(z, torch.ones(50, 2, dtype=torch.bool))
    assert torch.isfinite(space(z)).all()
    assert torch.isfinite(space.decode(space(z))).all()


def test_projections_start_orthogonal_and_depend_on_the_seed_alone() -> None:
    one, same, other = (CopulaSpace(2, 8, 4, seed=s).projection for s in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)
    assert torch.allclose(one.mT @ one, torch.eye(4), atol=1e-6)


def test_errors_name_the_modality_counts_and_the_option() -> None:
    with pytest.raises(ConfigError, match="--copula-dim"):
        CopulaSpace(2, 8, 9)
    available = torch.zeros(10, 2, dtype=torch.bool)
    available[:, 0] = True
    with pytest.raises(DataError, match="10, 0"):
        CopulaSpace(2, 8, 4).update(torch.randn(10, 2, 8), available)


def gaussian_joint(D: int, correlations: Tensor) -> JointModel:
    """K = 1, standard normal margins, one Gaussian copula per coordinate."""
    joint = JointModel(2, D, 1, "gaussian", params="per-dim").double()
    unit = Mixture(torch.zeros(1), torch.zeros(1, D), torch.ones(1, D))
    for marginal in joint.marginals:
        marginal.assign(unit)  # type: ignore[operator]
    eye = torch.eye(2, dtype=torch.float64)
    matrix = eye + correlations[:, None, None] * (1 - eye)
    joint.raw.data.copy_(joint.copula.unconstrained({"correlation": matrix}, 2))
    return joint


def canonical(z: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Canonical correlations and directions by numpy: SVD of the whitened cross-covariance."""
    a, b = (part - part.mean(0) for part in z.numpy().transpose(1, 0, 2))
    qa, ra = np.linalg.qr(a)
    qb, rb = np.linalg.qr(b)
    left, rho, right = np.linalg.svd(qa.T @ qb)
    return rho, np.linalg.solve(ra, left), np.linalg.solve(rb, right.T)


def test_gaussian_copula_term_of_white_coordinates_is_the_objective_of_deep_cca() -> None:
    D = 5
    z = embeddings(300, D)
    rho, left, right = canonical(z)
    check = CCA(n_components=D, max_iter=5000, tol=1e-12).fit(z[:, 0].numpy(), z[:, 1].numpy())
    scores = check.transform(z[:, 0].numpy(), z[:, 1].numpy())
    sklearn_rho = [np.corrcoef(a, b)[0, 1] for a, b in zip(*(s.T for s in scores), strict=True)]
    assert np.allclose(rho, sklearn_rho, atol=1e-4)
    directions = torch.from_numpy(np.stack([left, right]))
    space = CopulaSpace(2, D, D, shrinkage=0.0).double()
    rotated = torch.einsum("nmi,mid->nmd", z, directions)
    space.update(rotated, torch.ones(300, 2, dtype=torch.bool))
    joint = gaussian_joint(D, torch.from_numpy(rho))
    terms = joint.log_terms(space(rotated), torch.ones(300, 2, dtype=torch.bool))
    found = D * terms.copula.mean().item()
    assert found == pytest.approx(-0.5 * np.log1p(-(rho**2)).sum(), abs=1e-7)


def test_maximising_the_copula_term_finds_the_canonical_subspace() -> None:
    n, D, D_c = 400, 6, 2
    everyone = torch.ones(n, 2, dtype=torch.bool)
    scale = CopulaSpace(2, D, D).double()
    scale.update(embeddings(n, D), everyone)
    z = scale(embeddings(n, D))  # one learning rate for all directions
    rho, left, _ = canonical(z)
    space = CopulaSpace(2, D, D_c, shrinkage=0.0).double()
    joint = gaussian_joint(D_c, torch.tensor([0.3, 0.3], dtype=torch.float64))
    assert space.projection is not None
    optimizer = torch.optim.Adam([space.projection, joint.raw], 0.1)
    for _ in range(300):
        space.update(z, everyone)  # whiten anew; no gradient through the statistics
        loss = -joint.log_terms(space(z), everyone).copula.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = -0.5 * np.log1p(-(rho[:D_c] ** 2)).sum()
    assert -D_c * loss.item() <= best + 1e-6
    assert -D_c * loss.item() > 0.999 * best
    angles = subspace_angles(space.projection[0].detach().numpy(), left[:, :D_c])
    assert np.degrees(angles.max()) < 2
