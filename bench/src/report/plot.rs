//! Lines in a box, as SVG. No more than the figures of this program need.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 80.0;
/// Told apart by those who do not see colours, too.
const COLOURS: [&str; 4] = ["#0b6e99", "#d1495b", "#8a6d00", "#555555"];
const DASHES: [&str; 4] = ["none", "6 3", "2 3", "8 3 2 3"];

/// See the module.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) label: &'static str,
    /// In powers of ten; only what is above 0 is shown.
    pub(crate) log: bool,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Where values lie between two ends of the box.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(log: bool, values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite() && (!log || *value > 0.0)) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if log {
            (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
        } else {
            (low, high) = (low.min(0.0), if high > 0.0 { high * 1.05 } else { 1.0 });
        }
        if low >= high {
            high = if log { low * 10.0 } else { low + 1.0 };
        }
        Self { log, low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share =
            if self.log { (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10()) } else { (value - self.low) / (self.high - self.low) };
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.log {
            let decades = self.low.log10().round() as i32..=self.high.log10().round() as i32;
            return decades.map(|decade| 10_f64.powi(decade)).collect();
        }
        let rough = (self.high - self.low) / 6.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        (first..).map(|n| n as f64 * step).take_while(|tick| *tick <= self.high).collect()
    }
}

/// As short as it can be said.
fn tick(value: f64) -> String {
    match value.abs() {
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Plot {
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Scale::new(self.x.log, points().map(|point| point.0), (LEFT, WIDTH - RIGHT));
        let y = Scale::new(self.y.log, points().map(|point| point.1), (HEIGHT - BOTTOM, TOP));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"bold\">{}</text>\n",
            escape(&self.title)
        );
        self.grid(&mut svg, &x, &y);
        for (at, line) in self.lines.iter().enumerate() {
            let (colour, dash) = (COLOURS[at % COLOURS.len()], DASHES[at % DASHES.len()]);
            let shown = line.points.iter().filter(|(px, py)| (!x.log || *px > 0.0) && (!y.log || *py > 0.0));
            let places: Vec<(f64, f64)> = shown.map(|(px, py)| (x.at(*px), y.at(*py))).collect();
            let path: Vec<String> = places.iter().map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
            // Writing to a String cannot fail.
            let _ = writeln!(svg, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>", path.join(" "));
            if places.len() <= 20 {
                for (px, py) in places {
                    let _ = writeln!(svg, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"{colour}\"/>");
                }
            }
            let (left, top) = (LEFT + at as f64 * 210.0, HEIGHT - 14.0);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/><text x=\"{:.1}\" y=\"{top}\">{}</text>",
                top - 4.0,
                left + 24.0,
                top - 4.0,
                left + 30.0,
                escape(&line.name)
            );
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn grid(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for value in x.ticks() {
            let at = x.at(value);
            let _ = writeln!(svg, "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 16.0, tick(value));
        }
        for value in y.ticks() {
            let at = y.at(value);
            let _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>");
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, at + 4.0, tick(value));
        }
        let (middle, half) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = writeln!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 36.0, escape(self.x.label));
        let _ = writeln!(svg, "<text x=\"18\" y=\"{half}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {half})\">{}</text>", escape(self.y.label));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log: bool, points: Vec<(f64, f64)>) -> String {
        let axis = |label| Axis { label, log };
        Plot { title: "a < b".to_owned(), x: axis("x"), y: axis("y"), lines: vec![Line { name: "one".to_owned(), points }] }.svg()
    }

    #[test]
    fn points_lie_in_the_box_and_text_is_escaped() {
        let svg = plot(true, vec![(1.0, 10.0), (1000.0, 100_000.0)]);
        assert!(svg.contains("a &lt; b") && svg.contains(">100k<"), "{svg}");
        assert!(svg.contains("points=\"80.0,340.0 700.0,40.0\""), "{svg}");
    }

    #[test]
    fn nothing_to_show_is_no_reason_to_fail() {
        for log in [true, false] {
            for points in [vec![], vec![(0.0, 0.0)], vec![(5.0, 5.0)], vec![(f64::NAN, 1.0)]] {
                assert!(plot(log, points).ends_with("</svg>\n"));
            }
        }
    }
}
