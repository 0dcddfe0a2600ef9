//! Medians, and how far the rounds were apart.

/// A median, the least and the largest figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// None without figures.
    pub(crate) fn of(figures: &[f64]) -> Option<Spread> {
        Some(Spread {
            median: median(figures)?,
            least: figures.iter().copied().reduce(f64::min)?,
            most: figures.iter().copied().reduce(f64::max)?,
        })
    }

    /// Of figures over references, a pair for each round: the ratio of the medians, and the least
    /// and largest ratio within a round. The first is always between the others.
    pub(crate) fn of_ratios(pairs: &[(f64, f64)]) -> Option<Spread> {
        let (figures, references): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let ratios: Vec<f64> = pairs.iter().map(|(a, b)| a / b).collect();
        Some(Spread {
            median: median(&figures)? / median(&references)?,
            ..Spread::of(&ratios)?
        })
    }
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        length if length % 2 == 1 => Some(figures[middle]),
        _ => Some(f64::midpoint(figures[middle - 1], figures[middle])),
    }
}
