"""The style sheet: light, dark, phone, desktop and paper."""

# Colours of curves and bars have a contrast of at least 3 to the background,
# those of text of at least 4.5, in both schemes.
_LIGHT = """\
--bg:#fff;--fg:#1b1f24;--soft:#535c66;--line:#d5dbe1;--card:#f5f7f9;
--c0:#1f5fa8;--c1:#b8530a;--c2:#1a7f4b;--c3:#8a3ea8;--c4:#a01d48;--c5:#4d5b66;
--pale:#6392cc;--gray:#7d8790;--ok:#1a7030;--bad:#b42318;--warn:#8a5a00"""
_DARK = """\
--bg:#12161b;--fg:#e6eaee;--soft:#a4afba;--line:#323a43;--card:#1b2128;
--c0:#76b0f2;--c1:#f0a35e;--c2:#5fd093;--c3:#cf95e8;--c4:#f58aa9;--c5:#b4c0cb;
--pale:#436c9c;--gray:#87929d;--ok:#5fd07e;--bad:#ff8f80;--warn:#e6b450"""

# viridis, 12 steps, dark to bright: the same in both schemes.
HEAT = (
    "#440154 #482173 #433e85 #38588c #2d708e #25858e "
    "#1e9b8a #2ab07f #52c569 #86d549 #c2df23 #fde725"
).split()

_RULES = """\
*{box-sizing:border-box}
html{background:var(--bg);color:var(--fg);-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1rem;max-width:76rem;
 font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.2rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.4rem 0 .4rem;padding-top:.6rem;
 border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.6rem 0 .3rem}
p{margin:.3rem 0 .8rem;max-width:46rem;overflow-wrap:anywhere}
.soft,figcaption,caption{color:var(--soft);font-size:.875rem}
a{color:var(--c0)}
nav ul{list-style:none;margin:.8rem 0;padding:0;display:flex;flex-wrap:wrap;
 gap:.3rem 1.1rem}
nav a{display:inline-block;padding:.2rem 0}
.cards{display:grid;gap:.8rem;margin:1rem 0;
 grid-template-columns:repeat(auto-fit,minmax(min(100%,15rem),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:.5rem;
 padding:.8rem 1rem}
.card h3{margin:0;font-size:.875rem;font-weight:600;color:var(--soft)}
.card p{font-size:.875rem;margin:.2rem 0 0}
.card .big{font-size:1.5rem;font-weight:650;line-height:1.3}
dl{margin:.3rem 0 0;display:grid;grid-template-columns:auto 1fr;
 gap:.1rem .8rem}
dd{margin:0;text-align:right;overflow-wrap:anywhere;font-weight:650;font-variant-numeric:tabular-nums}
dd small{display:block;font-weight:400;color:var(--soft)}
.ok{color:var(--ok)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.plots{display:grid;gap:1rem 1.5rem;margin:.6rem 0;
 grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr))}
figure{margin:0;min-width:0;break-inside:avoid}
figure h4{margin:0;font-size:.9rem;font-weight:600;overflow-wrap:anywhere}
figcaption{overflow-wrap:anywhere}
.plots svg{display:block;width:100%;max-width:27rem;height:auto}
svg text{fill:var(--soft);font-size:11.5px;
 font-variant-numeric:tabular-nums}
.grid{stroke:var(--line);fill:none}.axis{stroke:var(--gray);fill:none}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}
.dashed{stroke-dasharray:5 4;stroke-width:1.5}
.bars{fill:var(--pale)}.key.bars-key{background:var(--pale)}.outline{fill:none;stroke:var(--c0);stroke-width:1.5}
.thin{stroke-width:1.5}
.heat{shape-rendering:crispEdges}.mark{fill:none;stroke:#fff;stroke-width:2}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem 1rem;
 margin:.3rem 0;padding:0;font-size:.875rem}
.key{display:inline-block;width:.9rem;height:.9rem;margin-right:.4rem;
 vertical-align:-.1rem;border-radius:.15rem;background:var(--gray)}
.key.line{height:.2rem;vertical-align:.2rem}
.key.dash{height:.15rem;width:1.5rem;vertical-align:.22rem;background:
 repeating-linear-gradient(to right,var(--soft) 0 .35rem,#0000 0 .57rem)}
.strip{display:grid;grid-template-columns:3.4rem 1fr;margin:.7rem 0 0}
.strip figcaption{grid-column:1/3;padding-bottom:.5rem}
.strip svg{display:block;width:100%;height:5.5rem;grid-column:2}
.scale,.places{position:relative;font-size:.75rem;color:var(--soft);
 font-variant-numeric:tabular-nums}
.scale span{position:absolute;right:.4rem;transform:translateY(50%)}
.places{grid-column:2;height:1.3rem}
.places span{position:absolute;transform:translateX(-50%)}
.float{fill:var(--gray)}.key.float{background:var(--gray)}
.strip .range{stroke-width:2;vector-effect:non-scaling-stroke}
.strip path.grid{vector-effect:non-scaling-stroke}
.split{display:block;width:100%;height:1.6rem;border-radius:.25rem;
 margin:.4rem 0}
.scroll{overflow-x:auto;max-width:100%;margin:.6rem 0;
 background:linear-gradient(to right,var(--bg) 30%,transparent) 0 0/3rem 100%
 no-repeat local,
 linear-gradient(to left,var(--bg) 30%,transparent) 100% 0/3rem 100%
 no-repeat local,
 linear-gradient(to right,#80808059,transparent) 0 0/.5rem 100%
 no-repeat scroll,
 linear-gradient(to left,#80808059,transparent) 100% 0/.5rem 100%
 no-repeat scroll}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--c0)}
table{width:max-content;border-collapse:collapse;font-size:.875rem;
 font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.2rem 0;
 max-width:min(46rem,calc(100vw - 2rem))}
th,td{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top;
 border-bottom:1px solid var(--line)}
th{white-space:nowrap;font-weight:600}
td{max-width:min(26rem,60vw);overflow-wrap:anywhere}
td details,td summary{margin:0;padding:0}
.n{text-align:right;white-space:nowrap}
td.n{max-width:none}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
 overflow-wrap:anywhere}
details{margin:.6rem 0}
summary{cursor:pointer;padding:.3rem 0;color:var(--c0)}
footer{margin:2.5rem 0 1rem;border-top:1px solid var(--line);
 padding-top:.6rem}
@media (max-width:40rem){.strip{grid-template-columns:2.9rem 1fr}}
"""

_PAPER = """\
body{max-width:none;font-size:11pt}nav{display:none}
.scroll{overflow:visible;background:none}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
details::details-content{content-visibility:visible;display:block;
 block-size:auto}
h2,h3,h4{break-after:avoid}"""


def style_sheet():
    """The whole style sheet, as text."""
    # What draws in the colour of a series: bars fill, curves are stroked.
    series = "".join(
        f".s{i}{{fill:var(--c{i})}}.curve.s{i},.range.s{i}{{fill:none;"
        f"stroke:var(--c{i})}}.key.s{i}{{background:var(--c{i})}}"
        for i in range(6)
    )
    heat = "".join(f".h{i}{{fill:{color}}}" for i, color in enumerate(HEAT))
    return (
        f":root{{color-scheme:light dark;{_LIGHT}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
        f"{_RULES}{series}{heat}@media print{{{_PAPER}}}"
    ).replace("\n", "")
