"""What has no integer kernel: a float graph between integers."""

from keras_saq.export.fragments import ConversionError
from keras_saq.export.fragments import convert
from keras_saq.export.fragments.convert import file_dtype
from keras_saq.export.lowering.builder import IN_FLOAT
from keras_saq.export.lowering.builder import MAY_DIFFER
from keras_saq.export.pending import Pending
from keras_saq.export.wording import class_name
from keras_saq.export.wording import refusal_of
from keras_saq.export.wording import refused_line
from keras_saq.layers import roles


def lower(builder, group, inputs):
    """The tensors that the sites of a group make for others.

    Args:
        builder: a `Builder`.
        group: a `Group`.
        inputs: what was made of each of its inputs: tensors of any kind.

    Returns:
        A list with a tensor or `Pending` for each of its outputs. Where an
        output only holds elements of an input that is on a grid, it is on
        that grid again.
    """
    return lower_sites(
        builder,
        group.sites,
        dict(zip(group.inputs, inputs)),
        group.outputs,
        group.reasons,
    )


def lower_sites(builder, sites, inputs, outputs, reasons):
    """`lower`, of sites that are in no group.

    Args:
        builder: a `Builder`.
        sites: list of `Site`, producers first.
        inputs: dict from `Value` to what was made of it.
        outputs: list of `Value`.
        reasons: why the sites are no integer kernels.
    """
    path = sites[0].path
    fragment = _converted(sites, list(inputs), outputs)
    gridded = {
        value: tensor
        for value, tensor in inputs.items()
        if not isinstance(tensor, Pending) and tensor.scale is not None
    }
    floats = [_plain(builder, tensor, path) for tensor in inputs.values()]
    made = _emit(builder, fragment, floats, sites, outputs, path)
    results, is_island = [], False
    for value, tensor in zip(outputs, made):
        source = _grid_of(value, sites, gridded)
        if source is not None and tensor.is_float:
            results.append(_back_on_grid(builder, tensor, gridded[source]))
        elif tensor.is_float:
            is_island = True
            results.append(_pending(fragment, tensor, floats, value))
        else:
            results.append(tensor)
    if is_island:
        builder.islands.append((path, _why(fragment, sites, reasons)))
    return results


def _converted(sites, inputs, outputs):
    try:
        return convert(sites, inputs, outputs)
    except ConversionError as error:
        raise ValueError(
            refusal_of(_culprits(sites, error).values())
        ) from error


def find_refused(group):
    """Path of each site that cannot be converted: a line that says why."""
    try:
        convert(group.sites, group.inputs, group.outputs)
    except ConversionError as error:
        return _culprits(group.sites, error)
    return {}


def _culprits(sites, error):
    """The same, of sites that were found not to be convertible together."""
    found = {}
    for site in sites if len(sites) > 1 else ():
        try:
            convert([site], list(dict.fromkeys(site.inputs)), site.outputs)
        except ConversionError as alone:
            found[site.path] = refused_line(site, alone)
    path = sites[0].path
    return found or {path: f"  {path} ({_names(sites)}): {error}"}


def _names(sites):
    return ", ".join(dict.fromkeys(class_name(s.operation) for s in sites))


def _plain(builder, tensor, path):
    if isinstance(tensor, Pending) or tensor.dtype is None:
        return builder.in_float(tensor, path)
    return tensor


def _emit(builder, fragment, inputs, sites, outputs, path):
    """The tensors that the fragment makes, one op for each."""
    tensors, computed = [], []
    for value, source in zip(outputs, fragment.sources):
        if source is not None:
            kind, number = source
            tensors.append((inputs if kind == "input" else tensors)[number])
            continue
        dtype = file_dtype(value.dtype)
        tensor = builder.tensor(
            value.name,
            value.shape[1:],
            dtype=None if dtype == "float32" else dtype,
        )
        tensor.rows = max(t.rows for t in inputs)
        tensors.append(tensor)
        computed.append((tensor, len(tensors) - 1))
    kind = "exact_fragment" if fragment.is_exact else "fragment"
    for tensor, index in computed:
        options = {
            "fragment": fragment,
            "index": index,
            "outputs": [tensor for tensor, _ in computed],
            "numbers": [index for _, index in computed],
        }
        builder.emit(kind, inputs, tensor, path, options)
    return tensors


def _grid_of(value, sites, gridded):
    """The value on a grid of whose elements another one consists."""
    while value.producer in sites:
        if not roles.keeps_grid(value.producer.operation):
            return None
        value = value.producer.inputs[0]
    return value if value in gridded else None


def _back_on_grid(builder, tensor, source):
    """The codes again, which are in the float tensor to the last bit."""
    output = builder.like(source, f"{tensor.name}/codes", tensor.shape)
    return builder.emit("quantize", [tensor], output, tensor.name)


def _pending(fragment, tensor, inputs, value):
    return Pending(
        "float",
        inputs,
        tensor.shape,
        value.producer.path,
        build=lambda builder, _: tensor,
    )


def _why(fragment, sites, reasons):
    names = _names(sites)
    counts = ", ".join(dict.fromkeys(fragment.operators))
    reason = f"{names} {IN_FLOAT} ({counts}): {reasons[0]}"
    if fragment.is_exact:
        return f"{reason}; exactly, each element as IEEE 754 says"
    return f"{reason}; {MAY_DIFFER}"
