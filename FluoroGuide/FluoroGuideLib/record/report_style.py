"""The style sheet of ``report.html``: one column on screens, A4 or letter on paper."""

STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0;background:#eef0f3;color:#1d2430;font:14px/1.45 system-ui,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:960px;margin:24px auto;padding:28px 36px;background:#fff;border-radius:6px;box-shadow:0 1px 4px #0002}
h1{margin:.2em 0 .5em;font-size:26px;overflow-wrap:anywhere}
h1::first-letter{text-transform:uppercase}
h2{margin:0 0 .5em;font-size:17px;border-bottom:2px solid #0072b2;padding-bottom:3px}
h3{margin:1em 0 .3em;font-size:14px}
section{margin-top:26px}
.notice{margin:0;padding:6px 10px;background:#fff4dc;border-left:4px solid #e69f00;font-size:13px}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(260px,1fr));gap:2px 24px;margin:0}
dl div{display:flex;gap:8px;border-bottom:1px solid #eef0f3;padding:2px 0;min-width:0}
dt{flex:0 0 140px;color:#5b6472}
dd{margin:0;min-width:0;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;margin-top:18px}
.card{border:1px solid #d9dde3;border-radius:6px;padding:8px 10px}
.card b{display:block;font-size:12px;color:#5b6472;font-weight:500}
.card strong{display:block;font-size:19px;white-space:nowrap}
.card i{font-style:normal;font-size:12px;color:#5b6472}
.card.warn strong,b.warn{color:#a65c00}
.card.fail strong,b.fail{color:#b3261e}
.card.pass strong,b.pass{color:#00724f}
table{width:100%;border-collapse:collapse;font-size:12.5px}
th{text-align:left;color:#5b6472;font-weight:600;border-bottom:1.5px solid #b8bec8;padding:4px 6px;vertical-align:bottom}
td{border-bottom:1px solid #e6e9ee;padding:4px 6px;vertical-align:top;overflow-wrap:anywhere}
th:not(.n),td:not(.n){min-width:2.2em}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
th.n{white-space:normal}
td small,figcaption small{display:block;color:#5b6472;font-size:11px}
tr.out td{background:#fdf0ea}
td ul{margin:2px 0 0;padding-left:16px;font-size:12px}
ul{margin:.4em 0;padding-left:20px}
ul.warnings{list-style:none;padding:0}
ul.warnings li{margin:3px 0;padding:3px 8px;background:#fff4dc;border-left:3px solid #e69f00;font-size:13px;overflow-wrap:anywhere}
li{overflow-wrap:anywhere}
.when{white-space:nowrap}
.none{color:#767d89;font-style:italic}
.legend{font-size:12px;color:#5b6472}
.notes{white-space:pre-wrap;overflow-wrap:anywhere}
.plots{display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start;margin-top:12px}
.plots figure{flex:1 1 300px;max-width:460px}
figure{margin:0}
figure.wide svg{width:100%}
svg{width:100%;height:auto}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(260px,1fr));gap:14px}
.picture img{width:100%;display:block;background:#000;border-radius:4px}
figcaption{font-size:12.5px;margin-top:4px;overflow-wrap:anywhere}
footer{margin-top:30px;padding-top:8px;border-top:1px solid #d9dde3;font-size:11.5px;color:#5b6472}
footer p{margin:2px 0;overflow-wrap:anywhere}
@media(max-width:640px){main{padding:16px;margin:0}table{display:block;overflow-x:auto}}
@page{margin:14mm}
@media print{
body{background:#fff;font-size:11.5px}
main{max-width:none;margin:0;padding:0;box-shadow:none}
h1{font-size:21px}h2{font-size:15px;break-after:avoid}h3{break-after:avoid}
tr,figure,.card,li,dl div{break-inside:avoid}
thead{display:table-header-group}
table{font-size:10.5px}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
.plots{flex-wrap:nowrap}.cards{grid-template-columns:repeat(6,1fr);gap:6px}.card{padding:5px 6px}.card strong{font-size:13.5px}
.pictures{grid-template-columns:repeat(2,1fr)}
}
"""
