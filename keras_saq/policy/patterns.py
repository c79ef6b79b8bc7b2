"""Regular expressions of rules, matched in bounded time.

Python's `re` tries one way after the other, and `(a+)+b` has 2**n of them. A
policy may come from anywhere, so its expressions must not be able to hang a
program. Most have few ways (at most three repetitions or alternatives, none
inside of another), and `re` matches them. All others are matched here, by
following all ways at once (K. Thompson, "Regular Expression Search Algorithm",
Communications of the ACM 11(6), 1968): steps are at most the length of the
path times the size of the expression. Both say the same of every expression.

What remembers a part of the text or forbids to try again (a back-reference
`\\1`, `(?(1)...)`, `(?>...)`, `a*+`) cannot be matched in this way. It is
allowed where `re` is quick, and refused elsewhere.
"""

import functools
import re

# Python's own reading of an expression: a list of `(operation, argument)`.
_compiler, _parser = re._compiler, re._parser
_op = re._constants

# Beyond these, `re` is not asked: at most this many places where it has a
# choice, on a text of at most this length, are a few million steps.
_CHOICES = 3
_LENGTH = 256
# Places in an expression, repetitions written out.
MAX_SIZE = 1000
_CHARACTERS = {_op.LITERAL, _op.NOT_LITERAL, _op.ANY, _op.IN}
_REPEATS = {_op.MAX_REPEAT, _op.MIN_REPEAT}
_REMEMBER = {_op.GROUPREF, _op.GROUPREF_EXISTS, _op.ATOMIC_GROUP}
_REMEMBER |= {_op.POSSESSIVE_REPEAT}


def check_pattern(pattern):
    """Raises if an expression is none, or could take too long.

    Args:
        pattern: the regular expression.

    Raises:
        ValueError: if it is not valid, has more than 1,000 places, or repeats
            something that remembers.

    Example:

    >>> from keras_saq.policy.patterns import check_pattern
    >>> check_pattern("(a+)+b")
    """
    _compiled(pattern)


def full_match(pattern, text):
    """Whether an expression matches a whole text, as `re.fullmatch` says it.

    Args:
        pattern: the regular expression.
        text: the text.

    Raises:
        ValueError: as `check_pattern`.

    Example:

    >>> from keras_saq.policy.patterns import full_match
    >>> full_match(".*/query", "block/attention/query")
    True
    >>> full_match("(a+)+b", 40 * "a")
    False
    """
    compiled = _compiled(pattern)
    if compiled.is_quick(len(text)):
        return re.fullmatch(pattern, text) is not None
    if compiled.remembers:
        raise ValueError(
            f"{_REFUSED} Received: {pattern!r} for a text of {len(text)} "
            "characters"
        )
    return compiled.matcher.matches(text)


_REFUSED = (
    "it has a back-reference, a condition, an atomic group or a possessive "
    "repetition, which only short and simple expressions may have: at most "
    f"{_CHOICES} repetitions and alternatives, none inside of another, and "
    f"texts of at most {_LENGTH} characters."
)


@functools.lru_cache(maxsize=256)
def _compiled(pattern):
    if not isinstance(pattern, str):
        raise ValueError("it is no text")
    try:
        re.compile(pattern)
        compiled = _Pattern(_parser.parse(pattern))
    except (re.error, OverflowError) as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("its parts are nested too deeply") from error
    if not compiled.is_quick(_LENGTH):
        if compiled.remembers:
            raise ValueError(_REFUSED)
        _ = compiled.matcher  # raises if it is too large
    return compiled


class _Pattern:
    """What is to be known of an expression."""

    def __init__(self, parsed):
        self._parsed = parsed
        self._choices = _choices(parsed)
        self.remembers = _remembers(parsed)

    def is_quick(self, length):
        """Whether `re` may be asked about a text of some length."""
        if self._choices > _CHOICES:
            return False
        return length**self._choices <= _LENGTH**_CHOICES

    @functools.cached_property
    def matcher(self):
        return _Matcher(self._parsed)


def _parts(argument):
    """The expressions inside of an operation's argument."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for entry in argument:
            yield from _parts(entry)


def _choices(parsed, is_repeated=False, times=1):
    """In how many places `re` has a choice.

    Infinite where one is inside of a repetition, or where something is
    repeated very often: also nothing at all can be, for hours.
    """
    count = 0
    for operation, argument in parsed:
        inner, inner_times = is_repeated, times
        if operation in _REPEATS or operation == _op.POSSESSIVE_REPEAT:
            low, high, _ = argument
            count += 1 if low != high else 0
            inner = inner or high > 1
            inner_times = times * max(low, 1)
        if operation in (_op.BRANCH, _op.GROUPREF_EXISTS):
            count += 1
        if (count and is_repeated) or inner_times > MAX_SIZE:
            return float("inf")
        count += sum(
            _choices(part, inner, inner_times) for part in _parts(argument)
        )
    return count


def _remembers(parsed):
    return any(
        operation in _REMEMBER or any(map(_remembers, _parts(argument)))
        for operation, argument in parsed
    )


class _Matcher:
    """All ways through an expression at once.

    A state is a number. From each there is a step of one kind: with a
    character to another state, with a condition on the place in the text, or
    without any.
    """

    def __init__(self, parsed):
        self._flags = parsed.state.flags
        self._state = parsed.state
        self._characters = {}  # state -> (test, next state)
        self._conditions = {}  # state -> (condition, next state)
        self._free = {}  # state -> next states
        self._count = 0
        self._memory = {}
        self._end = self._new()
        self._start = self._add(parsed, self._end, self._flags)

    def matches(self, text):
        """Whether the whole text matches."""
        return len(text) in self.ends(text, 0)

    def ends(self, text, start):
        """Where matches that begin at a place may end."""
        found, position = set(), start
        states = self._closure({self._start}, text, start)
        while states:
            if self._end in states:
                found.add(position)
            if position == len(text):
                break
            character = text[position]
            stepped = {
                following
                for state in states
                if state in self._characters
                for test, following in [self._characters[state]]
                if self._test(test, character)
            }
            position += 1
            states = self._closure(stepped, text, position)
        return found

    def _test(self, test, character):
        key = test, character
        if key not in self._memory:
            self._memory[key] = test.match(character) is not None
        return self._memory[key]

    def _closure(self, states, text, position):
        """The states, and those that are reached without a character."""
        found, open_states = set(states), list(states)
        while open_states:
            state = open_states.pop()
            following = self._free.get(state, ())
            if state in self._conditions:
                condition, after = self._conditions[state]
                following = [after] if condition(text, position) else ()
            for after in following:
                if after not in found:
                    found.add(after)
                    open_states.append(after)
        return found

    # The automaton is built from its end.

    def _new(self):
        self._count += 1
        if self._count > 4 * MAX_SIZE:
            raise ValueError(
                f"it has more than {MAX_SIZE} places, with what is repeated "
                "written out"
            )
        return self._count

    def _add(self, parsed, end, flags):
        """Adds a sequence that leads to `end`; returns where it begins."""
        for operation, argument in reversed(list(parsed)):
            end = self._add_one(operation, argument, end, flags)
        return end

    def _add_one(self, operation, argument, end, flags):
        if operation in _CHARACTERS:
            start = self._new()
            test = self._alone(operation, argument, flags)
            self._characters[start] = test, end
            return start
        if operation == _op.AT:
            test = self._alone(operation, argument, flags)
            return self._add_condition(
                lambda text, place: test.match(text, place) is not None, end
            )
        if operation in (_op.ASSERT, _op.ASSERT_NOT):
            return self._add_look(operation, argument, end, flags)
        if operation == _op.SUBPATTERN:
            _, added, removed, inner = argument
            return self._add(inner, end, (flags | added) & ~removed)
        if operation == _op.BRANCH:
            start = self._new()
            self._free[start] = [
                self._add(inner, end, flags) for inner in argument[1]
            ]
            return start
        if operation in _REPEATS:
            return self._add_repeat(*argument, end, flags)
        if operation == _op.FAILURE:
            return self._new()
        raise ValueError(f"it has {operation}, which is not known here")

    def _add_repeat(self, low, high, inner, end, flags):
        if high == _op.MAXREPEAT:
            loop = self._new()
            self._free[loop] = [end]
            self._free[loop] = [end, self._add(inner, loop, flags)]
            end = loop
        else:
            self._check_repeat(high - low, inner)
            for _ in range(high - low):
                start = self._new()
                self._free[start] = [end, self._add(inner, end, flags)]
                end = start
        self._check_repeat(low, inner)
        for _ in range(low):
            end = self._add(inner, end, flags)
        return end

    def _check_repeat(self, count, inner):
        """Also of what has no states there may not be a billion."""
        if count > MAX_SIZE:
            for _ in range(4 * MAX_SIZE):
                self._new()

    def _add_condition(self, condition, end):
        start = self._new()
        self._conditions[start] = condition, end
        return start

    def _add_look(self, operation, argument, end, flags):
        direction, inner = argument
        look = _Matcher.__new__(_Matcher)
        look.__dict__.update(
            self.__dict__, _characters={}, _conditions={}, _free={}, _memory={}
        )
        look._end = look._new()
        look._start = look._add(inner, look._end, flags)
        self._count = look._count
        width = inner.getwidth()[0]

        # Asked once a place: looks inside of looks would multiply.
        @functools.lru_cache(maxsize=4096)
        def condition(text, place):
            if direction > 0:
                found = bool(look.ends(text, place))
            else:
                found = place >= width
                found = found and place in look.ends(text, place - width)
            return found is (operation == _op.ASSERT)

        return self._add_condition(condition, end)

    def _alone(self, operation, argument, flags):
        """Python's own test of one character, or of one place."""
        part = _parser.SubPattern(self._state, [(operation, argument)])
        return _compiler.compile(part, flags & ~re.DEBUG)
