"""decoder blocks attend to its slots."""

from octavo.model.units.unpools import Unpool


class Cross(Unpool):
    """The byte decoder of BLT (2412.09871)."""

    uses = ("slots",)
    needs = {"decoder_layers": range(1, 1 << 31)}
    cross_attends = True

    @classmethod
    def size(cls, stage):
        return stage.slots

    @classmethod
    def flops(cls, stage, inner_width, length, units):
        attention = 4 * stage.width**2 * (length + (units + 1) * stage.slots)
        return stage.decoder_layers * attention + super().flops(stage, inner_width, length, units)

    def __call__(self, x, memory, index, boundary, since, p=None):
        return x
