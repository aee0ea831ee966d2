"""The closed form is the definition, in value and gradient, for every form of deflation."""

from __future__ import annotations

import pytest
import torch

from ima_yolo.align import centre
from ima_yolo.losses import IMALoss, ima_loss
from ima_yolo.masks import Regions
from ima_yolo.moments import adapted_error, standardized_error

FORMS = ("weight", "shifted", "floor", "cosine", "none")
NO_OBJECTS = Regions(torch.zeros(0, 5), {})


def maps(dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    teacher = torch.randn(3, 5, 6, 7, dtype=dtype)
    near = torch.tensor([1.0, 0.2, -0.5], dtype=dtype)[:, None, None, None]  # alike, hardly, and opposed
    student = (near * teacher + torch.randn_like(teacher)) * 3 + 7
    return student.requires_grad_(True), teacher * 0.1 - 2


def both(student: torch.Tensor, teacher: torch.Tensor, form: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    losses = (ima_loss(student, teacher, "both", form), standardized_error(centre(student), teacher, form))
    return [(loss, torch.autograd.grad(loss, student)[0]) for loss in losses]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_the_closed_form_is_the_definition(form: str, dtype: torch.dtype, tolerance: float) -> None:
    (expected, gradient), (found, fast) = both(*maps(dtype), form)
    assert found.item() == pytest.approx(expected.item(), rel=tolerance)
    assert (fast - gradient).abs().max() <= tolerance * gradient.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_it_stays_so_for_flat_channels_and_far_means(form: str) -> None:
    student, teacher = maps(torch.float32)
    with torch.no_grad():
        student[0, 0], teacher[1, 1] = 4.0, -3.0  # nothing to standardise
        student[2] += 100.0
        teacher[2] -= 100.0
    (expected, gradient), (found, fast) = both(student, teacher, form)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert fast.isfinite().all()
    assert (fast - gradient).abs().max() <= 1e-3 * gradient.abs().max()


@pytest.mark.parametrize("form", ["cosine", "none"])
def test_its_gradient_is_that_of_its_value(form: str) -> None:
    """The other forms hold gamma constant in the gradient on purpose."""
    student, teacher = maps(torch.float64)
    with torch.no_grad():
        student[2] = teacher[2] + 0.1 * student[2]  # a negative cosine stands at the clamp, which has no derivative
    student = student.detach()[:, :2, :3, :3].requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda s: standardized_error(centre(s), teacher[:, :2, :3, :3], form), student, atol=1e-6
    )


def test_by_hand() -> None:
    student = torch.tensor([-1.0, 1.0, -1.0, 1.0]).view(1, 1, 2, 2)
    teacher = torch.tensor([-1.0, 1.0, 1.0, -1.0]).view(1, 1, 2, 2)  # as strong, and uncorrelated
    assert standardized_error(student, student, "none").item() == pytest.approx(0.0, abs=1e-5)
    assert standardized_error(student, teacher, "none").item() == pytest.approx(2.0, rel=1e-5)
    assert standardized_error(student, -student, "none").item() == pytest.approx(4.0, rel=1e-5)
    assert standardized_error(student, teacher, "shifted").item() == pytest.approx(1.25, rel=1e-5), "gamma is a half"


def test_any_order_of_memory_gives_the_same() -> None:
    student, teacher = maps(torch.float64)
    layout = torch.channels_last
    plain = standardized_error(centre(student), teacher)
    turned = standardized_error(
        centre(student).contiguous(memory_format=layout), teacher.contiguous(memory_format=layout)
    )
    assert turned.item() == pytest.approx(plain.item(), rel=1e-12)


@pytest.mark.parametrize("mask", ["none", "spatial", "frequency"])
@pytest.mark.parametrize("restore", ["light", "conv", "none"])
@pytest.mark.parametrize("instance", ["image", "box"])
def test_the_module_takes_it_and_gives_the_definition(mask: str, restore: str, instance: str) -> None:
    """Centring goes before the adapter where nothing follows it."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(2, 6, 8, 8)
    regions = Regions(torch.tensor([[0.0, 4, 4, 40, 36], [1.0, 10, 20, 60, 60]]), {})
    found = []
    for closed in (True, False):
        torch.manual_seed(1)
        rng = torch.Generator().manual_seed(3)
        module = IMALoss(4, 6, mask=mask, restore=restore, instance=instance, rng=rng)
        assert module.closed
        assert module.fused is (instance == "image" and (restore == "light" or (restore, mask) == ("none", "none")))
        if not closed:
            module.fused = module.closed = module.centred_before = False
        loss = module(student, teacher, 8, regions)
        found.append((loss, torch.autograd.grad(loss, student)[0]))
    assert found[0][0].item() == pytest.approx(found[1][0].item(), rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_an_adapter_inside_the_closed_form_gives_the_definition(
    form: str, dtype: torch.dtype, tolerance: float, layout: torch.memory_format
) -> None:
    """Value, gradient at the student and gradient of the adapter."""
    student, teacher = maps(dtype)
    teacher = teacher.contiguous(memory_format=layout)
    weight = torch.randn(5, 5, dtype=dtype, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    adapted = torch.nn.functional.conv2d(student, weight[:, :, None, None])
    plain, fast = ima_loss(adapted, teacher, "both", form), adapted_error(centre(student), weight, teacher, form)
    assert fast.item() == pytest.approx(plain.item(), rel=tolerance)
    for expected, found in zip(*(torch.autograd.grad(x, [student, weight]) for x in (plain, fast)), strict=True):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_it_stays_so_where_the_teacher_lies_far_from_zero_or_is_flat() -> None:
    student, teacher = maps(torch.float32)
    with torch.no_grad():
        student[0, 0], teacher[1, 1] = 4.0, -3.0
        teacher[2] -= 100.0
    weight = torch.eye(5)
    weight[0] = 0.0  # an adapted channel that is flat
    adapted = torch.nn.functional.conv2d(student, weight[:, :, None, None])
    plain, fast = ima_loss(adapted, teacher), adapted_error(centre(student), weight, teacher)
    assert fast.item() == pytest.approx(plain.item(), rel=1e-4)
    expected, found = (torch.autograd.grad(loss, student)[0] for loss in (plain, fast))
    assert found.isfinite().all()
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("seed", range(20))
def test_exactly_opposed_images_have_the_largest_error_and_none_weighs_less_than_nothing(seed: int) -> None:
    """Their cosines round to -1 or below; divided by a mean of that size, weights of either sign gave -95."""
    teacher = torch.randn(4, 64, 16, 16, generator=torch.Generator().manual_seed(seed))
    student = -1.7 * teacher
    fast, closed = adapted_error(centre(student), torch.eye(64), teacher), standardized_error(centre(student), teacher)
    for found in (ima_loss(student, teacher), fast, closed):
        assert found.item() == pytest.approx(4.0, rel=1e-5)


def test_nearly_opposed_images_are_pushed_alike() -> None:
    """The gradient is that of the definition there, and of no deflation, since the weights are equal."""
    torch.manual_seed(0)
    teacher = torch.randn(4, 8, 16, 16, dtype=torch.float64)
    student = (-1.7 * teacher + 1e-4 * torch.randn_like(teacher)).requires_grad_(True)
    weight = torch.eye(8, dtype=torch.float64)
    losses = [ima_loss(student, teacher), ima_loss(student, teacher, deflation="none")]
    losses += [adapted_error(centre(student), weight, teacher), standardized_error(centre(student), teacher)]
    expected, *others = (torch.autograd.grad(loss, student)[0] for loss in losses)
    assert expected.abs().max() > 0
    for found in others:
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("rest", [1e-2, 1e-3, 0.0])
def test_what_rounding_leaves_of_an_adapted_channel_is_not_amplified(rest: float) -> None:
    """An adapter across what all channels share: they cancel each other out, and noise is left."""
    for seed in range(20):
        rng = torch.Generator().manual_seed(seed)
        common, shares = torch.randn(3, 1, 8, 8, generator=rng) * 8, torch.randn(32, generator=rng)
        student = common * shares[:, None, None] + rest * torch.randn(3, 32, 8, 8, generator=rng)
        weight, teacher = torch.randn(16, 32, generator=rng), torch.randn(3, 16, 8, 8, generator=rng)
        weight -= (weight @ shares)[:, None] * shares / shares.square().sum()
        student.requires_grad_(True)
        adapted = torch.nn.functional.conv2d(student, weight[:, :, None, None])
        plain, fast = ima_loss(adapted, teacher), adapted_error(centre(student), weight, teacher)
        expected, found = (torch.autograd.grad(loss, student)[0].norm() for loss in (plain, fast))
        assert found <= 1.5 * expected, seed


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_any_number_of_images_at_a_time_gives_the_same(form: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One on a CPU, all on a GPU; the student's map in either order of memory."""
    student, teacher = maps(torch.float64)
    weight = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    adapted = torch.nn.functional.conv2d(student, weight[:, :, None, None])
    plain = ima_loss(adapted, teacher, "both", form)
    monkeypatch.setattr("ima_yolo.moments.images_at_a_time", lambda batch: chunk)
    fast = adapted_error(centre(student).contiguous(memory_format=torch.channels_last), weight, teacher, form)
    assert fast.item() == pytest.approx(plain.item(), rel=1e-10)
    for expected, found in zip(*(torch.autograd.grad(x, [student, weight]) for x in (plain, fast)), strict=True):
        assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("own", "other"), [(1e10, 1e10), (1e12, 1.0), (1.0, 1e12), (1e-8, 1.0)])
def test_values_of_any_size_give_the_definition(form: str, own: float, other: float) -> None:
    student, teacher = ((part.detach() * size) for part, size in zip(maps(torch.float32), (own, other), strict=True))
    student.requires_grad_(True)
    weight = torch.eye(5)
    exact, seen = student.detach().double().requires_grad_(True), teacher.double()
    plain, fast = ima_loss(exact, seen, "both", form), adapted_error(centre(student), weight, teacher, form)
    assert fast.item() == pytest.approx(plain.item(), rel=1e-3)
    expected, found = torch.autograd.grad(plain, exact)[0], torch.autograd.grad(fast, student)[0]
    assert (found - expected).abs().max() <= 1e-2 * expected.abs().max()


def test_no_image_is_no_loss_and_any_type_of_adapter_will_do() -> None:
    module = IMALoss(4, 6)
    assert module(torch.zeros(0, 4, 8, 8, requires_grad=True), torch.zeros(0, 6, 8, 8), 8, NO_OBJECTS).item() == 0
    student, teacher = torch.randn(2, 4, 8, 8, dtype=torch.bfloat16, requires_grad=True), torch.randn(2, 6, 8, 8)
    module.to(torch.bfloat16)(student, teacher, 8, NO_OBJECTS).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_no_map_of_the_teachers_width_is_kept_for_the_backward_pass() -> None:
    """Beside the teacher's own map, which is there anyway."""
    student, teacher = torch.randn(2, 4, 16, 16, requires_grad=True), torch.randn(2, 64, 16, 16)
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    module = IMALoss(4, 64, rng=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(student, teacher, 8, NO_OBJECTS)
    large = {tensor.untyped_storage().data_ptr() for tensor in kept if tensor.numel() >= teacher.numel()}
    assert large <= {teacher.untyped_storage().data_ptr()}


def test_an_adapter_whose_bias_would_be_centred_away_has_none() -> None:
    assert IMALoss(4, 6).adapter.bias is None
    assert IMALoss(4, 6, standardized="none").adapter.bias is not None
    assert IMALoss(4, 6, restore="conv").adapter.bias is not None


def test_no_instance_is_no_loss() -> None:
    module = IMALoss(4, 6, instance="box")
    student = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss = module(student, torch.randn(2, 6, 8, 8), 8, NO_OBJECTS)
    loss.backward()
    assert loss.item() == 0.0


@pytest.mark.parametrize("size", [(1, 2), (2, 2), (3, 5)])
def test_maps_of_few_cells_keep_the_digits_of_their_gradient(size: tuple[int, int]) -> None:
    """As those of small images at the coarsest stride, where adapted channels cancel each other out."""
    torch.manual_seed(0)
    module = IMALoss(256, 512, mask="none", restore="none")
    student, teacher = torch.randn(8, 256, *size), torch.randn(8, 512, *size)
    found = torch.autograd.grad(module(student.requires_grad_(True), teacher, 32, NO_OBJECTS), student)[0]
    exact, weight = student.detach().double().requires_grad_(True), module.adapter.get_parameter("weight").double()
    expected = torch.autograd.grad(ima_loss(torch.nn.functional.conv2d(exact, weight), teacher.double()), exact)[0]
    assert module.fused
    assert (found - expected).norm() < 1e-3 * expected.norm()
