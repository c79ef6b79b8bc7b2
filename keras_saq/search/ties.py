"""Sets of things that have to be decided together."""


class Ties:
    """Disjoint sets, each with the candidates that its members share."""

    def __init__(self):
        self._parents = {}
        self._bits = {}

    def add(self, key, bits):
        """Adds a member; one that is there keeps the common candidates."""
        if key not in self._parents:
            self._parents[key] = key
            self._bits[key] = tuple(bits)
            return
        root = self.root(key)
        self._bits[root] = _common(self._bits[root], bits)

    def join(self, keys):
        """Makes one set of the sets of some members."""
        for key in keys[1:]:
            first, other = self.root(keys[0]), self.root(key)
            if first != other:
                self._parents[other] = first
                self._bits[first] = _common(
                    self._bits[first], self._bits[other]
                )

    def root(self, key):
        """The member that stands for a set."""
        while self._parents[key] != key:
            key = self._parents[key]
        return key

    def bits(self, key):
        """Common candidates of the set of a member."""
        return self._bits[self.root(key)]

    def sets(self):
        """List of the sets."""
        found = {}
        for key in self._parents:
            found.setdefault(self.root(key), set()).add(key)
        return list(found.values())


def _common(first, second):
    return tuple(bits for bits in first if bits in second)
