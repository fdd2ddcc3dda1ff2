"""The stages that made the shipped demo model, and their learning rates."""

from dataclasses import dataclass, field

from tools.demo_model.objectives import Balance
from tools.demo_model.optimizer import Rates

SEED = 20261
WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training.

    images        pictures per worker and step
    text_tokens   room for questions behind each picture; 0 trains the vision tower alone
    shares        how often each kind of picture comes
    focus         factors on how often some questions are asked, by builder
    horizon       steps that the rates are laid out for; training stops at `steps`
    cool_from     fraction of the horizon after which the rates fall linearly to a twentieth;
                  1 keeps them constant
    """

    name: str
    steps: int
    horizon: int
    images: int
    text_tokens: int
    shares: dict[str, float]
    muon: float
    adam: float
    vision_decay: float
    text_decay: float
    picture_share: float
    cool_from: float
    warm_steps: int = 60
    vision_scale: float = 1.0
    evenness: float = 0.0
    name_share: float = 0.0
    focus: dict[str, float] = field(default_factory=dict)

    @property
    def balance(self) -> Balance:
        """Weights of the losses."""
        return Balance(
            picture_share=self.picture_share, name_share=self.name_share, evenness=self.evenness
        )

    def rates(self, step: int) -> Rates:
        """Rates of a step, counted from 0."""
        done = step / self.horizon
        fall = min(1.0, (1 - done) / max(1e-9, 1 - self.cool_from))
        scale = min(1.0, (step + 1) / self.warm_steps) * max(0.05, fall)
        momentum = 0.85 + 0.1 * min(1.0, step / 300)
        return Rates(muon=self.muon * scale, adam=self.adam * scale, momentum=momentum,
                     vision_decay=self.vision_decay, text_decay=self.text_decay,
                     vision_scale=self.vision_scale)  # fmt: skip


STAGES = (
    Stage(
        name="see",
        steps=800,
        horizon=800,
        images=48,
        text_tokens=0,
        shares={"scene": 0.2, "sign": 0.6, "chart": 0.2},
        muon=0.03,
        adam=2e-3,
        vision_decay=0.3,
        text_decay=0.1,
        picture_share=1.0,
        cool_from=1.0,
    ),
    Stage(
        name="read",
        steps=1000,
        horizon=1400,
        images=48,
        text_tokens=0,
        shares={"scene": 0.15, "sign": 0.7, "chart": 0.15},
        muon=0.012,
        adam=2e-3,
        vision_decay=0.1,
        text_decay=0.1,
        picture_share=1.0,
        cool_from=0.0,
    ),
    Stage(
        name="answer",
        steps=600,
        horizon=700,
        images=48,
        text_tokens=104,
        shares={"scene": 0.34, "sign": 0.46, "chart": 0.20},
        muon=0.02,
        adam=2e-3,
        vision_decay=0.1,
        text_decay=0.1,
        picture_share=0.3,
        cool_from=0.0,
        vision_scale=0.3,
    ),
    Stage(
        name="answer better",
        steps=200,
        horizon=1050,
        images=48,
        text_tokens=104,
        shares={"scene": 0.42, "sign": 0.37, "chart": 0.21},
        muon=0.015,
        adam=1.5e-3,
        vision_decay=0.1,
        text_decay=0.1,
        picture_share=0.3,
        cool_from=0.0,
        vision_scale=0.4,
        evenness=0.5,
    ),
    Stage(
        name="answer relations",
        steps=500,
        horizon=500,
        images=48,
        text_tokens=104,
        shares={"scene": 0.42, "sign": 0.37, "chart": 0.21},
        muon=0.014,
        adam=1.5e-3,
        vision_decay=0.1,
        text_decay=0.1,
        picture_share=0.3,
        cool_from=0.0,
        vision_scale=0.4,
        evenness=0.5,
        name_share=0.5,
        focus={"ask_relation": 5.0},
    ),
)
