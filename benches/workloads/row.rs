//! Contestants in turns, and how a row is printed: ours first, then its floors by name.

/// One question: what is done, and who does it.
pub struct Row<'a> {
    work: String,
    amount: f64,
    unit: &'static str,
    contestants: Vec<Contestant<'a>>,
}

struct Contestant<'a> {
    name: String,
    round: Box<dyn FnMut() -> f64 + 'a>,
}

/// What came out: seconds of each round, by contestant.
#[derive(Debug, Clone)]
pub struct Measured {
    work: String,
    amount: f64,
    unit: &'static str,
    contestants: Vec<(String, Vec<f64>)>,
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Row({})", self.work)
    }
}

impl<'a> Row<'a> {
    /// A row without contestants; a round does `amount` of `unit`.
    pub fn new(work: impl Into<String>, amount: f64, unit: &'static str) -> Self {
        Self {
            work: work.into(),
            amount,
            unit,
            contestants: Vec::new(),
        }
    }

    /// One more who does it; `round` answers its seconds. The first is ours.
    #[must_use]
    pub fn contestant(mut self, name: impl Into<String>, round: impl FnMut() -> f64 + 'a) -> Self {
        self.contestants.push(Contestant {
            name: name.into(),
            round: Box::new(round),
        });
        self
    }

    /// Lets everybody take turns, each round begun by the next one.
    pub fn run(self, rounds: usize) -> Measured {
        self.take_turns(rounds, |round, turn, count| (round + turn) % count)
    }

    /// Lets everybody take turns, each round in the order they were named in.
    pub fn run_in_order(self, rounds: usize) -> Measured {
        self.take_turns(rounds, |_, turn, _| turn)
    }

    fn take_turns(
        mut self,
        rounds: usize,
        whose: impl Fn(usize, usize, usize) -> usize,
    ) -> Measured {
        let count = self.contestants.len();
        let mut seconds = vec![Vec::new(); count];
        for round in 0..rounds {
            for turn in 0..count {
                let at = whose(round, turn, count);
                if let Some((contestant, seconds)) =
                    self.contestants.get_mut(at).zip(seconds.get_mut(at))
                {
                    seconds.push((contestant.round)());
                }
            }
        }
        let names = self.contestants.into_iter().map(|one| one.name);
        Measured {
            work: self.work,
            amount: self.amount,
            unit: self.unit,
            contestants: names.zip(seconds).collect(),
        }
    }
}

impl Measured {
    /// Figures that were taken elsewhere.
    pub fn new(
        work: impl Into<String>,
        amount: f64,
        unit: &'static str,
        contestants: Vec<(String, Vec<f64>)>,
    ) -> Self {
        Self {
            work: work.into(),
            amount,
            unit,
            contestants,
        }
    }

    /// Prints the row: who, how fast, seconds with the least and the most, and how long ours takes
    /// in terms of each other's time.
    pub fn print(&self) {
        let rounds = self.contestants.first().map_or(0, |(_, all)| all.len());
        println!("{} ({rounds} rounds)", self.work);
        let ours = self.contestants.first().map(|(_, all)| median(all));
        for (at, (name, all)) in self.contestants.iter().enumerate() {
            let middle = median(all);
            let times = match ours {
                Some(ours) if at > 0 => format!("   ours takes {:.2} x", ours / middle),
                _ => String::new(),
            };
            println!(
                "  {name:<44} {:>12} {}/s   {middle:>9.4} s ({:.4} to {:.4}){times}",
                thousands(self.amount / middle),
                self.unit,
                all.iter().copied().fold(f64::INFINITY, f64::min),
                all.iter().copied().fold(0.0, f64::max),
            );
        }
    }
}

/// The middle of the figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number as people read it: three digits at a time, and decimals only where they matter.
pub fn thousands(number: f64) -> String {
    if number.abs() < 100.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn contestants_take_turns_and_each_begins_once() {
        let order = RefCell::new(Vec::new());
        let note = |name| {
            order.borrow_mut().push(name);
            1.0
        };
        let measured = Row::new("work", 1.0, "things")
            .contestant("ours", || note('a'))
            .contestant("floor", || note('b'))
            .run(2);
        assert_eq!(*order.borrow(), ['a', 'b', 'b', 'a']);
        assert_eq!(measured.contestants[1].1, [1.0, 1.0]);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(1.5, "1.50"), (999.0, "999"), (1_234_567.0, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(thousands(-1000.0), "-1,000");
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    }
}
