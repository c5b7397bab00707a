//! The samples as a picture.

use super::Struck;
use super::sample::Sample;
use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use std::path::Path;

const SIZE: (u32, u32) = (1600, 1500);
const FONT: &str = "sans-serif";
const MIB: f64 = (1 << 20) as f64;
const COLOURS: [RGBColor; 4] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
];

/// A line: name and value; None where there is none.
type Line = (&'static str, fn(&Sample) -> Option<f64>);

struct Chart {
    title: &'static str,
    lines: &'static [Line],
}

const CHARTS: &[Chart] = &[
    Chart {
        title: "memory, MiB",
        lines: &[
            ("agent, resident", |s| Some(s.agent?.rss_bytes as f64 / MIB)),
            ("collector, resident", |s| {
                Some(s.collector?.rss_bytes as f64 / MIB)
            }),
            ("agent, BPF maps", |s| Some(s.agent?.map_bytes as f64 / MIB)),
        ],
    },
    Chart {
        title: "descriptors and threads",
        lines: &[
            ("agent, descriptors", |s| Some(s.agent?.descriptors as f64)),
            ("collector, descriptors", |s| {
                Some(s.collector?.descriptors as f64)
            }),
            ("agent, threads", |s| Some(s.agent?.threads as f64)),
            ("collector, threads", |s| Some(s.collector?.threads as f64)),
        ],
    },
    Chart {
        title: "disk, MiB",
        lines: &[
            ("spool", |s| Some(s.spool_bytes as f64 / MIB)),
            ("store", |s| Some(s.store_bytes as f64 / MIB)),
        ],
    },
    Chart {
        title: "events that wait in the agent, and events lost so far, thousands",
        lines: &[
            ("waiting, as far as reported", |s| {
                Some(s.retained as f64 / 1e3)
            }),
            ("lost and counted", |s| Some(s.lost as f64 / 1e3)),
        ],
    },
    Chart {
        title: "events so far, thousands",
        lines: &[
            ("seen", |s| Some(s.seen as f64 / 1e3)),
            ("in the store", |s| Some(s.committed as f64 / 1e3)),
        ],
    },
];

/// Writes the picture. Orange lines are faults.
pub(super) fn draw(path: &Path, title: &str, samples: &[Sample], faults: &[Struck]) -> Result<()> {
    // The letters come with the program: no machine has to have fonts.
    plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular())
        .map_err(|_| anyhow!("the embedded font is no font"))?;
    let area = BitMapBackend::new(path, SIZE).into_drawing_area();
    let drawn = (|| {
        area.fill(&WHITE)?;
        let rest = area.titled(title, (FONT, 26))?;
        let rest = rest.titled("orange: a fault", (FONT, 14))?;
        for (part, chart) in rest.split_evenly((CHARTS.len(), 1)).iter().zip(CHARTS) {
            draw_chart(part, chart, samples, faults)?;
        }
        area.present()
    })();
    drawn
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("drawing {}", path.display()))
}

type Drawn = std::result::Result<(), DrawingAreaErrorKind<BitMapBackendError>>;
type BitMapBackendError = <BitMapBackend<'static> as DrawingBackend>::ErrorType;

fn draw_chart(
    area: &DrawingArea<BitMapBackend<'_>, Shift>,
    chart: &Chart,
    samples: &[Sample],
    faults: &[Struck],
) -> Drawn {
    let end = samples.last().map_or(1.0, |sample| sample.at);
    let values = chart
        .lines
        .iter()
        .flat_map(|(_, value)| samples.iter().filter_map(value));
    // Room for the names above the lines.
    let top = values.fold(1.0, f64::max) * 1.5;
    let mut context = ChartBuilder::on(area)
        .caption(chart.title, (FONT, 18))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    context
        .configure_mesh()
        .x_desc("seconds")
        .label_style((FONT, 14))
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(235, 235, 235))
        .draw()?;
    let fault_colour = RGBColor(255, 190, 110);
    context.draw_series(faults.iter().map(|fault| {
        PathElement::new(
            vec![(fault.at, 0.0), (fault.at, top)],
            fault_colour.stroke_width(1),
        )
    }))?;
    for ((name, value), colour) in chart.lines.iter().zip(COLOURS) {
        // Where a program is down its line is broken.
        let mut label = Some(*name);
        for piece in samples.split(|sample| value(sample).is_none()) {
            let points = piece.iter().filter_map(|s| Some((s.at, value(s)?)));
            let line = context.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
            if let Some(name) = label.take() {
                line.label(name).legend(move |(x, y)| {
                    PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            }
        }
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 14))
        .draw()
}
