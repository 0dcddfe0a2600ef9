//! The picture of a result: for each workload the ratios to haproxy, as bars with whiskers.
//!
//! A bar is what the table shows, the ratio of the medians; its whiskers are the least and the
//! largest ratio within a round. Haproxy's own bars show how far its rounds were from its median.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::{self, Results};
use crate::results;
use crate::spread::Spread;
use crate::target::{Kind, Target};
use crate::workload::{Better, Column, Workload};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Outcome = Result<(), Box<dyn Error>>;

const PANEL_WIDTH: i32 = 560;
const HEADER_HEIGHT: i32 = 92;
/// Caption, axis and margins of a panel.
const FRAME_HEIGHT: f64 = 68.0;
const BAR_HEIGHT: f64 = 14.0;
/// Between the bars of two targets, in bars.
const GAP: f64 = 0.7;
const NAMES_WIDTH: i32 = 140;
/// Ratios beyond this are cut off; their number is beside the bar.
const RATIO_MAX: f64 = 4.0;
/// Part of the axis that is kept free for the numbers beside the bars.
const NUMBERS_PART: f64 = 0.3;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(50, 50, 50);
const GRID: RGBColor = RGBColor(225, 225, 225);
const WHOLE: RGBColor = RGBColor(120, 120, 120);

/// What a column is about.
#[derive(Clone, Copy, PartialEq)]
enum Topic {
    Rate,
    Cpu,
    Latency,
    Memory,
}

impl Topic {
    const ALL: [Topic; 4] = [Topic::Rate, Topic::Cpu, Topic::Latency, Topic::Memory];

    fn of(column: &Column) -> Topic {
        match column.better {
            Better::Higher => Topic::Rate,
            _ if figures::is_cpu(column) => Topic::Cpu,
            _ if column.metric.starts_with("rss_") => Topic::Memory,
            _ => Topic::Latency,
        }
    }

    fn color(self) -> RGBColor {
        match self {
            Topic::Rate => RGBColor(38, 103, 178),
            Topic::Cpu => RGBColor(224, 122, 31),
            Topic::Latency => RGBColor(131, 84, 176),
            Topic::Memory => RGBColor(56, 146, 86),
        }
    }

    fn legend(self) -> &'static str {
        match self {
            Topic::Rate => "throughput (more is better)",
            Topic::Cpu => "CPU per unit (less is better)",
            Topic::Latency => "latency (less is better)",
            Topic::Memory => "memory (less is better)",
        }
    }
}

/// One bar: None where the row is void.
struct Bar {
    column: &'static Column,
    ratio: Option<Spread>,
}

/// The bars of one target.
struct Group<'a> {
    target: &'a Target,
    bars: Vec<Bar>,
}

struct Panel<'a> {
    workload: Workload,
    groups: Vec<Group<'a>>,
}

impl Panel<'_> {
    /// Height in bars.
    fn height(&self) -> f64 {
        let heights = self
            .groups
            .iter()
            .map(|group| group.bars.len() as f64 + GAP);
        heights.sum()
    }
}

/// Draws what can be compared with haproxy; false if nothing can.
pub(crate) fn write(path: &Path, results: &Results) -> Result<bool, Box<dyn Error>> {
    let workloads = results.plan.workloads.iter();
    let panels: Vec<Panel> = workloads
        .filter_map(|workload| panel(results, *workload))
        .collect();
    if panels.is_empty() {
        return Ok(false);
    }
    let columns = if panels.len() < 5 { 2 } else { 3 };
    // Panels beside each other are equally high.
    let bars = |line: &[Panel]| line.iter().map(Panel::height).fold(0.0, f64::max);
    let mut bottoms = vec![HEADER_HEIGHT];
    for line in panels.chunks(columns) {
        let height = (FRAME_HEIGHT + bars(line) * BAR_HEIGHT).ceil() as i32;
        bottoms.push(bottoms[bottoms.len() - 1] + height);
    }
    let width = u32::try_from(PANEL_WIDTH * columns as i32)?;
    let height = u32::try_from(bottoms[bottoms.len() - 1])?;
    let root = SVGBackend::new(path, (width, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let edges: Vec<i32> = (1..columns as i32)
        .map(|column| column * PANEL_WIDTH)
        .collect();
    let areas = root.split_by_breakpoints(edges, &bottoms[..bottoms.len() - 1]);
    draw_header(&root, results, &panels)?;
    // The first line of areas is the header's.
    for (area, (place, panel)) in areas[columns..].iter().zip(panels.iter().enumerate()) {
        let line = place / columns * columns;
        let last = panels.len().min(line + columns);
        draw_panel(area, panel, bars(&panels[line..last]))?;
    }
    root.present()?;
    Ok(true)
}

fn panel(results: &Results, workload: Workload) -> Option<Panel<'_>> {
    let rows = results.rows(workload);
    let balancers = rows
        .iter()
        .filter(|(_, target, _)| target.kind != Kind::Direct);
    let groups: Vec<Group> = balancers
        .filter_map(|(row, target, _)| {
            let reference = results.reference(target.threads)?;
            let bars = figures::compared(workload).map(|column| Bar {
                column,
                ratio: ratio(results, workload, *row, reference, column.metric),
            });
            Some(Group {
                target,
                bars: bars.collect(),
            })
        })
        .collect();
    (!groups.is_empty()).then_some(Panel { workload, groups })
}

fn ratio(
    results: &Results,
    workload: Workload,
    row: usize,
    reference: usize,
    metric: &str,
) -> Option<Spread> {
    if row != reference {
        return results.ratio(workload, row, reference, metric);
    }
    let own = results.spread(workload, row, metric)?;
    (own.median > 0.0).then(|| Spread {
        median: 1.0,
        least: own.least / own.median,
        most: own.most / own.median,
    })
}

fn text(size: u32, color: RGBColor) -> TextStyle<'static> {
    (FONT, size).into_font().color(&color)
}

fn draw_header(area: &Area, results: &Results, panels: &[Panel]) -> Outcome {
    let plan = &results.plan;
    let title = "Ratios to haproxy with as many threads (= 1)";
    area.draw(&Text::new(title, (16, 10), text(24, INK)))?;
    let (count, model) = results::cpus();
    let line = format!(
        "{} rounds of {} s on {count} x {model}, Linux {}. Bars: ratio of the medians; whiskers: \
         least and largest ratio within a round.",
        plan.rounds,
        plan.seconds,
        results::kernel(),
    );
    area.draw(&Text::new(line, (16, 40), text(14, INK)))?;
    let shown = |topic: &Topic| {
        let bars = panels.iter().flat_map(|panel| &panel.groups);
        bars.flat_map(|group| &group.bars)
            .any(|bar| Topic::of(bar.column) == *topic)
    };
    let mut left = 16;
    for topic in Topic::ALL.iter().filter(|topic| shown(topic)) {
        let square = [(left, 66), (left + 14, 78)];
        area.draw(&Rectangle::new(square, topic.color().filled()))?;
        area.draw(&Text::new(topic.legend(), (left + 20, 65), text(15, INK)))?;
        left += 225;
    }
    Ok(())
}

fn draw_panel(area: &Area, panel: &Panel, bars: f64) -> Outcome {
    let longest = panel
        .groups
        .iter()
        .flat_map(|group| &group.bars)
        .filter_map(|bar| Some(bar.ratio?.most))
        .fold(1.2, f64::max)
        .min(RATIO_MAX);
    let end = longest / (1.0 - NUMBERS_PART);
    let caption = format!("{}: {}", panel.workload.name(), panel.workload.title());
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(caption, text(15, INK))
        .set_label_area_size(LabelAreaPosition::Left, NAMES_WIDTH)
        .set_label_area_size(LabelAreaPosition::Bottom, 22)
        // Downwards, as a table is read; all panels have the same scale of it.
        .build_cartesian_2d(0.0..end, bars..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(8)
        .x_label_formatter(&|x| format!("{x:.1}"))
        .label_style(text(13, INK))
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .draw()?;
    let beside_bar = text(13, INK).pos(Pos::new(HPos::Left, VPos::Center));
    let mut labels = Vec::new();
    let mut top = GAP / 2.0;
    for group in &panel.groups {
        let middle = top + group.bars.len() as f64 / 2.0;
        let (_, y) = chart.backend_coord(&(0.0, middle));
        let (_, area_top) = area.get_base_pixel();
        let style = text(15, INK).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(
            group.target.name(),
            (NAMES_WIDTH, y - area_top),
            style,
        ))?;
        for bar in &group.bars {
            let color = Topic::of(bar.column).color();
            let middle = top + 0.5;
            top += 1.0;
            let Some(ratio) = bar.ratio else {
                let note = format!("{}: no figure", bar.column.heading);
                labels.push(Text::new(note, (end * 0.012, middle), beside_bar.clone()));
                continue;
            };
            // The peers' bars are paler than ours.
            let opacity = if group.target.is_peer() { 0.45 } else { 1.0 };
            let length = ratio.median.min(longest);
            let corners = [(0.0, middle - 0.42), (length, middle + 0.42)];
            chart.draw_series([Rectangle::new(corners, color.mix(opacity).filled())])?;
            let (least, most) = (ratio.least.min(longest), ratio.most.min(longest));
            let line = |x: f64, y: f64, to: (f64, f64)| PathElement::new([(x, y), to], INK);
            let (upper, lower) = (middle - 0.22, middle + 0.22);
            chart.draw_series([
                line(least, middle, (most, middle)),
                line(least, upper, (least, lower)),
                line(most, upper, (most, lower)),
            ])?;
            let number = format!("{:.2} {}", ratio.median, bar.column.heading);
            let beside = (most.max(length) + end * 0.012, middle);
            labels.push(Text::new(number, beside, beside_bar.clone()));
        }
        top += GAP;
    }
    chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, bars)], WHOLE)])?;
    chart.draw_series(labels)?;
    Ok(())
}
