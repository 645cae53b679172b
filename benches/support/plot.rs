//! Lines over time as SVG: what a page needs of it, and no more.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const PANEL: f64 = 170.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 34.0;
const GAP: f64 = 44.0;

/// A line of a panel: its name, its colour, its value for each second.
pub type Line<'a> = (&'a str, &'a str, Vec<f64>);

/// A page of panels, one below the other, over the same seconds; `shade` are seconds that are marked.
pub fn svg(title: &str, shade: Option<(f64, f64)>, panels: &[(&str, Vec<Line<'_>>)]) -> String {
    let seconds = panels.iter().flat_map(|(_, lines)| lines).map(|line| line.2.len()).max();
    let seconds = seconds.unwrap_or(1).max(2) as f64;
    let height = TOP + panels.len() as f64 * (PANEL + GAP);
    let x = |second: f64| LEFT + second / seconds * (WIDTH - LEFT - 16.0);
    let mut page = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\" font-weight=\"bold\">{title}</text>\n"
    );
    for (number, (name, lines)) in panels.iter().enumerate() {
        let top = TOP + number as f64 * (PANEL + GAP);
        let most = lines.iter().flat_map(|line| &line.2).fold(1.0_f64, |most, it| most.max(*it));
        let y = |value: f64| top + PANEL - value / most * (PANEL - 16.0);
        if let Some((from, to)) = shade {
            let (from, to) = (x(from), x(to.min(seconds)));
            let _ = writeln!(
                page,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"#f3dcd6\"/>",
                to - from
            );
        }
        for part in 0..=4 {
            let value = most * f64::from(part) / 4.0;
            let _ = writeln!(
                page,
                "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/>\
                 <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#555\">{value:.0}</text>",
                y(value),
                WIDTH - 16.0,
                LEFT - 6.0,
                y(value) + 4.0
            );
            let second = seconds * f64::from(part) / 4.0;
            let _ = writeln!(
                page,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{second:.0} s</text>",
                x(second),
                top + PANEL + 15.0
            );
        }
        let _ =
            writeln!(page, "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#333\">{name}</text>", top + 8.0);
        for (place, (name, colour, values)) in lines.iter().enumerate() {
            let mut path = String::new();
            for (second, value) in values.iter().enumerate() {
                let step = if second == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{step}{:.1} {:.1}", x(second as f64), y(*value));
            }
            let _ = writeln!(
                page,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>",
                WIDTH - 20.0,
                top + 8.0 + 14.0 * place as f64
            );
        }
    }
    page + "</svg>\n"
}
