"""Plans for any card on any GPU."""

from hypothesis import strategies as st

from deploy import cards, fit, gpus
from deploy.cards import Card
from deploy.fit import PlanError
from deploy.gpus import Gpu
from deploy.plan import Plan
from deploy.precisions import Precision

CARDS = cards.load_all()

GPUS = gpus.load_all()

a_card = st.sampled_from(CARDS)


def accepted(
    card: Card, gpu: Gpu, count: int | None, precision: Precision, context: int | None = None
) -> Plan | None:
    try:
        return fit.fit(card, gpu, count, precision, context)
    except PlanError:
        return None
