"""Each loss against its formula, written out in float64."""

from __future__ import annotations

import pytest
import torch

from reuselib.training import objectives

T = 3.0


def drawn(*shape, seed=0, scale=2.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def softened(logits):
    exponents = (logits.double() / T).exp()
    return exponents / exponents.sum(-1, keepdim=True)


def test_categories_are_compared_by_their_softened_divergence():
    student, teacher = drawn(7, 5), drawn(7, 5, seed=1)
    p, q = softened(teacher), softened(student)

    wanted = T**2 * (p * (p / q).log()).sum()

    assert objectives.categories_loss(student, teacher, T).item() == pytest.approx(
        wanted.item(), 1e-6
    )


def test_at_a_high_temperature_the_gradient_is_that_of_matching_logits():
    """Hinton et al., 2015, equation 4: with centred logits, (z - v) / N."""
    student, teacher = drawn(4, 6).requires_grad_(), drawn(4, 6, seed=1)

    objectives.categories_loss(student, teacher, 1000.0).backward()

    centred = [each - each.mean(-1, keepdim=True) for each in (student.detach(), teacher)]
    assert student.grad is not None
    assert torch.allclose(student.grad, (centred[0] - centred[1]) / 6, atol=2e-3)


def test_decisions_are_compared_one_by_one():
    student, teacher = drawn(7, 3), drawn(7, 3, seed=1)
    p, q = (1 / (1 + (-each.double() / T).exp()) for each in (teacher, student))

    wanted = T**2 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()

    assert objectives.decisions_loss(student, teacher, T).item() == pytest.approx(
        wanted.item(), 1e-6
    )


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2, 3)])
def test_numbers_are_compared_by_their_square(shape):
    student, teacher = drawn(*shape), drawn(*shape, seed=1)

    wanted = sum(((s - t) ** 2).double().mean() for s, t in zip(student, teacher, strict=True))

    assert objectives.numbers_loss(student, teacher).item() == pytest.approx(float(wanted), 1e-6)


class TestTop:
    student, teacher = drawn(9, 20), drawn(9, 20, seed=1)

    def test_the_rest_counts_as_one_category(self):
        p, q = softened(self.teacher), softened(self.student)
        top = p.topk(4).indices
        top_p, top_q = (
            torch.cat([e.gather(1, top), 1 - e.gather(1, top).sum(1, True)], 1) for e in (p, q)
        )
        wanted = T**2 * (top_p * (top_p / top_q).log()).sum()

        told = objectives.top_probabilities(self.teacher, 4, T)

        assert told[1].equal(top.int())
        assert objectives.top_loss(self.student, *told, T).item() == pytest.approx(
            wanted.item(), 1e-5
        )

    def test_it_approaches_the_whole_divergence_from_below(self):
        whole = objectives.categories_loss(self.student, self.teacher, T).item()
        found = [
            objectives.top_loss(
                self.student, *objectives.top_probabilities(self.teacher, k, T), T
            ).item()
            for k in (1, 5, 10, 19)
        ]

        assert found == sorted(found)
        assert found[0] < 0.9 * whole
        assert found[-1] == pytest.approx(whole, 1e-4)

    def test_a_student_like_the_teacher_has_neither_loss_nor_gradient(self):
        student = self.teacher.clone().requires_grad_()

        loss = objectives.top_loss(
            student, *objectives.top_probabilities(student.detach(), 4, T), T
        )
        loss.backward()

        assert loss.item() == pytest.approx(0.0, abs=1e-5)
        assert student.grad is not None
        assert student.grad.abs().max() < 1e-5

    def test_a_teacher_without_doubt_gives_a_finite_gradient(self):
        teacher = torch.tensor([[100.0, 0.0, 0.0, 0.0]])
        student = torch.tensor([[0.0, 100.0, 0.0, 0.0]]).requires_grad_()

        objectives.top_loss(student, *objectives.top_probabilities(teacher, 2, 1.0), 1.0).backward()

        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_hidden_states_are_compared_position_by_position():
    student, teacher = drawn(11, 8), drawn(11, 8, seed=1)

    found = objectives.position_losses(student, teacher)

    assert torch.allclose(found.double(), ((student - teacher).double() ** 2).sum(1) / 8, atol=1e-6)


def test_means_are_those_of_each_row():
    values, counts = drawn(6), torch.tensor([1, 3, 2])

    found = objectives.row_means(values, counts)

    wanted = torch.stack([values[:1].mean(), values[1:4].mean(), values[4:].mean()])
    assert torch.allclose(found, wanted, atol=1e-6)


class TestRelations:
    """Against a loop over rows and heads without padding."""

    lengths = (4, 2, 3)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    student, teacher = drawn(3, 4, 12, scale=1.0), drawn(3, 4, 24, seed=1, scale=1.0)

    def by_hand(self, num_heads):
        losses = []
        for row, length in enumerate(self.lengths):
            total = 0.0
            for head in range(num_heads):
                tables = []
                for vectors in (self.teacher, self.student):
                    width = vectors.shape[-1] // num_heads
                    x = vectors[row, :length, head * width : (head + 1) * width].double()
                    tables.append((x @ x.T / width**0.5).softmax(-1))
                total += (tables[0] * (tables[0] / tables[1]).log()).sum() / (num_heads * length)
            losses.append(total)
        return torch.tensor(losses)

    @pytest.mark.parametrize("num_heads", [1, 3, 4])
    def test_any_number_of_heads_that_divides_both_widths(self, num_heads):
        found = objectives.relation_losses(self.student, self.teacher, self.mask, num_heads)

        assert torch.allclose(found.double(), self.by_hand(num_heads), atol=1e-6)

    def test_what_stands_in_the_padding_does_not_matter(self):
        other = self.student.clone()
        other[1, 2:], other[2, 3:] = 7.0, -7.0

        found = [
            objectives.relation_losses(each, self.teacher, self.mask, 3)
            for each in (self.student, other)
        ]

        assert torch.allclose(*found, atol=1e-7)

    def test_the_gradient_is_finite_and_stops_at_the_padding(self):
        student = self.student.clone().requires_grad_()

        objectives.relation_losses(student, self.teacher, self.mask, 3).sum().backward()

        assert student.grad is not None
        assert student.grad.isfinite().all()
        assert student.grad[1, 2:].abs().max() == 0
        assert student.grad[1, :2].abs().max() > 0


@pytest.mark.parametrize(
    ("widths", "most", "number"),
    [
        ((384, 384), 12, 12),
        ((384, 288), 16, 16),
        ((384, 288), 12, 12),
        ((576, 192), 9, 8),
        ((7, 5), 4, 1),
    ],
)
def test_relations_have_as_many_heads_as_the_widths_allow(widths, most, number):
    assert objectives.num_relation_heads(widths, most) == number
