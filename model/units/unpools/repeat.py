"""added to each."""

from octavo.model.units.unpools import Unpool, read


class Repeat(Unpool):
    """Upsampling by repetition (dynamic pooling, 2211.09761), of complete units."""

    def __call__(self, x, memory, index, boundary, since, p=None):
        return x + read(memory, index)
