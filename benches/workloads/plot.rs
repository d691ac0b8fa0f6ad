//! What a bench measured, as lines of an SVG drawing.

use plotters::prelude::{
    BLACK, ChartBuilder, Color, IntoDrawingArea, LineSeries, PathElement, RGBColor, SVGBackend,
    WHITE,
};

/// A drawing: percents by something.
#[derive(Debug)]
pub struct Plot<'a> {
    /// What the percents are of.
    pub title: &'a str,
    /// What they are by.
    pub across: &'a str,
    /// One line each.
    pub curves: &'a [Curve],
}

/// One line.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it is called.
    pub name: &'static str,
    /// From left to right; what is up is in percent.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// How many percent of some values are at most as large as each of them.
    pub fn shares(name: &'static str, mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let count = values.len() as f64;
        let points = values.into_iter().enumerate();
        let points = points.map(|(at, value)| (value as f64, (at + 1) as f64 / count * 100.0));
        Self {
            name,
            points: points.collect(),
        }
    }
}

impl Plot<'_> {
    /// The drawing; `None` if there is nothing to draw.
    pub fn svg(&self) -> Option<String> {
        let points = self.curves.iter().flat_map(|curve| &curve.points);
        let (right, low) = points.fold((0.0_f64, 100.0_f64), |(right, low), (across, up)| {
            (right.max(*across), low.min(*up))
        });
        // What is near the top all the way is looked at closely.
        let low = if low >= CLOSE { CLOSE } else { 0.0 };
        let mut svg = String::new();
        let drawn = (right > 0.0).then(|| self.draw(&mut svg, right, low))?;
        drawn.expect("a string takes it all");
        Some(svg)
    }

    fn draw<'a>(
        &'a self,
        svg: &'a mut String,
        right: f64,
        low: f64,
    ) -> Result<(), Box<dyn std::error::Error + 'a>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..right * 1.02, low..100.0)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(self.across)
            .draw()?;
        for (curve, color) in self.curves.iter().zip(COLORS.iter().cycle()) {
            let style = color.stroke_width(2);
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
                .label(curve.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], style));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        area.present()?;
        Ok(())
    }
}

/// Pixels across and down.
const SIZE: (u32, u32) = (720, 400);
/// Percent.
const CLOSE: f64 = 90.0;
/// Told apart by those who see no red or no green, too.
const COLORS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_curve_is_a_line_with_its_name() {
        let plot = Plot {
            title: "All (%)",
            across: "milliseconds",
            curves: &[
                Curve::shares("quick", vec![3, 1, 2]),
                Curve::shares("slow", vec![30, 10, 20]),
            ],
        };
        let svg = plot.svg().unwrap();
        for said in ["All (%)", "milliseconds", "quick", "slow"] {
            assert!(svg.contains(said), "{said} in {svg}");
        }
        assert!(svg.matches("<polyline").count() >= 4, "{svg}");
    }

    #[test]
    fn of_nothing_nothing_is_drawn() {
        let (title, across) = ("All (%)", "milliseconds");
        let curves = &[];
        let plot = Plot {
            title,
            across,
            curves,
        };
        assert_eq!(plot.svg(), None);
    }

    #[test]
    fn shares_rise_to_all_of_them() {
        let curve = Curve::shares("quick", vec![3, 1]);
        assert_eq!(curve.points, [(1.0, 50.0), (3.0, 100.0)]);
    }
}
