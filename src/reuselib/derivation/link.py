"""One step of a plan with the model that it starts from, and what follows from the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from reuselib.adapter import Adapter
from reuselib.derivation.origin import COMPRESSING, find_origin
from reuselib.derivation.origin import origin as origin_of
from reuselib.derivation.plan import Plan, identity
from reuselib.derivation.recall import recall
from reuselib.derivation.saving import StepSaving
from reuselib.derivation.teacher import Teacher
from reuselib.lineage.checkpoints import Checkpoints
from reuselib.model.opening import open_network
from reuselib.model.source import Pinned

if TYPE_CHECKING:
    from reuselib.derivation.session import Session


@dataclass(frozen=True)
class Link:
    """What makes a child of a model."""

    plan: Plan
    adapter: Adapter
    parent: Pinned

    @cached_property
    def derivation_id(self) -> str:
        """Of the child."""
        return self.plan.id(self.adapter, self.parent)

    @cached_property
    def origin(self) -> Pinned:
        """The model before the chain was compressed, found and read once, however often it is asked for.

        Raises:
            SourceError: it is not at hand.
            IntegrityError: what is there is another model by now.
        """
        return find_origin(self.parent, self.plan.store)

    @cached_property
    def compressed(self) -> bool:
        """Whether the child stands for its origin at a lower cost."""
        return self.adapter.relation in COMPRESSING or bool(
            origin_of(self.parent.manifest, self.parent.history)[1]
        )

    def session(self, session: Session, form: str) -> Session:
        """A session of the plan as the step's adapter is to have it; raises as `origin` if the adapter uses that.

        Args:
            session: over the plan's rows.
            form: of the parent.
        """
        return replace(
            session,
            origin_teacher=self._teacher() if self.adapter.uses_origin else None,
            form=form,
            derivation_id=self.derivation_id,
            step_saving=self._saving(session),
            remembered=partial(recall, self.parent, self.plan.store),
        )

    def _saving(self, session: Session) -> StepSaving | None:
        """Where checkpoints are kept, if they are."""
        if session.saving is None:
            return None
        place = Checkpoints(self.plan.store.path, self.derivation_id)
        return StepSaving(session.saving, place, self.plan.inputs(self.adapter, self.parent))

    def _teacher(self) -> Teacher:
        """What `Run.origin` gives, opened when it is asked for."""
        found, plan = self.origin, self.plan
        trusted = plan.base.ref.trust_remote_code
        return Teacher(
            identity(found.manifest),
            lambda: open_network(found.folder, plan.task, plan.store, trust_remote_code=trusted),
        )
