//! Charts as SVG: lines with bands, bars with whiskers.

use std::error::Error;
use std::ops::Range;

use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (860, 480);
/// Most points of a line; more are closer together than pixels.
const POINTS: usize = 430;

/// Mean of several measurements and their standard deviation; 0 for one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of a sample: with n - 1.
    pub deviation: f64,
}

impl Spread {
    /// Of some numbers; none have a mean of 0.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        if values.is_empty() {
            return Self::default();
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if values.len() < 2 { 0.0 } else { (squares / (count - 1.0)).sqrt() };
        Self { mean, deviation }
    }

    fn low(self) -> f64 {
        self.mean - self.deviation
    }

    fn high(self) -> f64 {
        self.mean + self.deviation
    }
}

/// A line: what it is called, and its points from left to right.
pub struct Line {
    /// In the legend.
    pub label: String,
    /// Step and value.
    pub points: Vec<(f64, Spread)>,
}

/// Bars of one colour: what they are called, and one for every category.
pub struct Bars {
    /// In the legend.
    pub label: String,
    /// In the order of the categories.
    pub values: Vec<Spread>,
}

type Drawn = Result<String, Box<dyn Error>>;

/// Lines over steps.
///
/// # Errors
/// There is no finite point.
pub fn lines(title: &str, value: &str, lines: &[Line]) -> Drawn {
    let points = || lines.iter().flat_map(|line| &line.points);
    let x = range(points().map(|(x, _)| (*x, *x))).ok_or("no point to draw")?;
    let y = range(points().map(|(_, y)| (y.low(), y.high()))).ok_or("no point to draw")?;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart.configure_mesh().light_line_style(WHITE).x_desc("step").y_desc(value).draw()?;
        for (number, line) in lines.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            let points = thinned(&line.points);
            let band = points.iter().map(|(x, y)| (*x, y.high()));
            let band: Vec<_> =
                band.chain(points.iter().rev().map(|(x, y)| (*x, y.low()))).collect();
            chart.draw_series([Polygon::new(band, colour.mix(0.2))])?;
            let middle = points.iter().map(|(x, y)| (*x, y.mean));
            chart
                .draw_series(LineSeries::new(middle, colour.stroke_width(2)))?
                .label(&line.label)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled())
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// Bars of shares, from 0 to 1, side by side in every category.
///
/// # Errors
/// The backend's; text in memory has none.
pub fn bars(title: &str, categories: &[String], groups: &[Bars]) -> Drawn {
    // A fifth of each category's room stays free.
    let width = 0.8 / groups.len().max(1) as f64;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(32)
            .y_label_area_size(48)
            // Room above 1 for the legend.
            .build_cartesian_2d(0.0..categories.len() as f64, 0.0..1.25)?;
        let name = |x: &f64| {
            // Marks lie in the middle of categories.
            let at = x.floor() as usize;
            categories
                .get(at)
                .filter(|_| (x.fract() - 0.5).abs() < 0.01)
                .cloned()
                .unwrap_or_default()
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_labels(2 * categories.len() + 1)
            .x_label_formatter(&name)
            .y_label_formatter(&|y| if *y > 1.001 { String::new() } else { format!("{y:.1}") })
            .draw()?;
        for (number, group) in groups.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            let left = |at: usize| at as f64 + 0.1 + number as f64 * width;
            let filled = group.values.iter().enumerate().map(|(at, value)| {
                let corners = [(left(at), 0.0), (left(at) + width * 0.92, value.mean)];
                Rectangle::new(corners, colour.mix(0.75).filled())
            });
            chart.draw_series(filled)?.label(&group.label).legend(move |(x, y)| {
                Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.mix(0.75).filled())
            });
            let spread = group.values.iter().enumerate().filter(|(_, value)| value.deviation > 0.0);
            chart.draw_series(spread.map(|(at, value)| {
                let x = left(at) + width * 0.46;
                PathElement::new(
                    [(x, value.low().max(0.0)), (x, value.high())],
                    BLACK.stroke_width(2),
                )
            }))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}

/// From the least to the greatest, with some room; `None` without a finite number.
fn range(spans: impl Iterator<Item = (f64, f64)>) -> Option<Range<f64>> {
    let finite = spans.filter(|(low, high)| low.is_finite() && high.is_finite());
    let (low, high) = finite.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
    let room = if high > low { (high - low) * 0.03 } else { low.abs().max(1.0) * 0.1 };
    Some(low - room..high + room)
}

/// Every so-manieth point, and the last.
fn thinned(points: &[(f64, Spread)]) -> Vec<(f64, Spread)> {
    let every = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.iter().enumerate().filter(|(at, _)| at % every == 0 || *at == last);
    kept.map(|(_, point)| *point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_those_of_samples() {
        assert_eq!(Spread::of(&[]), Spread::default());
        assert_eq!(Spread::of(&[3.0]), Spread { mean: 3.0, deviation: 0.0 });
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0]), Spread { mean: 2.0, deviation: 1.0 });
    }

    #[test]
    fn a_line_of_any_length_fits() {
        let points = |count: u32| (0..count).map(|x| (f64::from(x), Spread::of(&[1.0]))).collect();
        let long: Vec<_> = points(1_000_000);
        let thin = thinned(&long);
        assert!(thin.len() <= POINTS + 1);
        assert_eq!((thin[0].0, thin[thin.len() - 1].0), (0.0, 999_999.0));
        assert_eq!(thinned(&long[..3]).len(), 3);
        assert!(thinned(&[]).is_empty());

        let line = |label: &str, points| Line { label: label.to_owned(), points };
        let svg = lines("a <b>", "loss", &[line("x & y", points(5)), line("z", points(1))]);
        let svg = svg.expect("a chart");
        assert!(svg.contains("a &lt;b&gt;") && svg.contains("x &amp; y"), "{svg}");
        assert!(lines("", "", &[line("empty", Vec::new())]).is_err());
        assert!(lines("", "", &[line("nan", vec![(0.0, Spread::of(&[f64::NAN]))])]).is_err());
    }

    #[test]
    fn bars_stand_where_their_category_is() {
        let group = |label: &str, values: &[f64]| Bars {
            label: label.to_owned(),
            values: values.iter().map(|value| Spread { mean: *value, deviation: 0.1 }).collect(),
        };
        let categories = ["first", "second"].map(str::to_owned);
        let groups = [group("a", &[0.5, 1.0]), group("b", &[0.0, 0.25])];
        let svg = bars("marks", &categories, &groups).expect("a chart");
        // Each once: a second label would mean that ticks fell elsewhere than expected.
        for name in ["first", "second", "marks"] {
            assert_eq!(svg.matches(name).count(), 1, "{svg}");
        }
    }
}
