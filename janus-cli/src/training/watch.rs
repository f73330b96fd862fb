//! What a run says while it goes: a line with rate and time left, and notes that stay.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use janus_train::metrics::Row;
use janus_train::strategy::{End, Event, Measured};
use janus_train::trainer::Watcher;
use serde_json::{Value, json};

use crate::interrupt;
use crate::report;

/// How often the line changes.
const LINE: Duration = Duration::from_millis(200);
/// How often a log that nobody watches gets one.
const LOG: Duration = Duration::from_secs(60);
/// Steps whose time says how long the others will take: many enough for checkpoints to count, few
/// enough for an hour in which the machine slept to be forgotten soon.
const RECENT: usize = 100;
/// Bad samples that are named; the rest is counted.
const NAMED: usize = 10;

/// What became of a run.
#[derive(Default)]
pub struct Summary {
    output: PathBuf,
    steps: u64,
    /// Steps done.
    step: u64,
    loss: Option<f64>,
    valid: Option<f64>,
    left_out: usize,
    skipped: usize,
    pub end: Option<End>,
}

impl Summary {
    /// Of a run that has not begun.
    pub fn new(output: PathBuf, steps: u64) -> Self {
        Self { output, steps, ..Self::default() }
    }

    /// Says how it ended.
    pub fn finish(&mut self, end: End) {
        self.end = Some(end);
        if end == End::Finished {
            self.step = self.steps;
        }
    }

    fn end(&self) -> &'static str {
        match self.end {
            Some(End::Finished) => "finished",
            Some(End::NoBetter) => "no_better",
            Some(End::Stopped) | None => "stopped",
        }
    }

    /// What the last checkpoint holds for other commands.
    fn product(&self) -> PathBuf {
        let latest = self.output.join("ckpt/latest");
        let adapter = latest.join("adapter");
        if adapter.is_dir() { adapter } else { latest.join("model") }
    }

    /// For scripts.
    pub fn value(&self) -> Value {
        json!({
            "output": self.output,
            "end": self.end(),
            "step": self.step,
            "steps": self.steps,
            "loss": self.loss,
            "valid_loss": self.valid,
            "samples_left_out": self.left_out,
            "steps_left_out": self.skipped,
            "model": self.product(),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let how = match self.end() {
            "finished" => format!("finished after {} steps", self.step),
            "no_better" => format!("ended after {} steps: the loss is no longer better", self.step),
            _ => format!("stopped after {} of {} steps", self.step, self.steps),
        };
        let loss = |what: &str, loss: Option<f64>| {
            loss.map(|loss| format!(", {what} {loss:.4}")).unwrap_or_default()
        };
        let losses = loss("loss", self.loss) + &loss("validation loss", self.valid);
        format!("{}: {how}{losses}; {}\n", self.output.display(), self.product().display())
    }
}

/// Watches a run.
pub struct Watch {
    summary: Rc<RefCell<Summary>>,
    /// Whether this line is wanted at all.
    wanted: bool,
    terminal: bool,
    /// When the newest steps were done, and with which number; first of all, where the run began.
    recent: VecDeque<(u64, Instant)>,
    shown: Option<Instant>,
}

impl Watch {
    /// With or without a line of its own.
    pub fn new(summary: Rc<RefCell<Summary>>, wanted: bool) -> Self {
        let (recent, terminal) =
            (VecDeque::from([(0, Instant::now())]), io::stderr().is_terminal());
        Self { summary, wanted, terminal, recent, shown: None }
    }

    /// As the library calls it.
    pub fn into_watcher(mut self) -> Watcher {
        Box::new(move |event| {
            self.event(&event);
            interrupt::flow()
        })
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Resumed(found) => {
                for passed in &found.passed_over {
                    self.note(&format!("passed over: {passed}"));
                }
                found.notes.iter().for_each(|note| self.note(note));
                self.recent = VecDeque::from([(found.state.step, Instant::now())]);
                self.summary.borrow_mut().step = found.state.step;
                self.note(&format!("going on after step {}", found.state.step));
            }
            Event::LeftOut(names) => self.left_out(names),
            Event::Step(row) => self.step(row),
            Event::Validated(step, judged) => self.validated(*step, judged),
            Event::Saved(saved) => {
                // Every one in a log, none where a line moves.
                if !self.terminal && !saved.already {
                    self.note(&format!("saved {}", saved.path.display()));
                }
            }
            Event::RolledBack { step, reason, to } => {
                self.recent = VecDeque::from([(*to, Instant::now())]);
                self.note(&format!("step {}: {reason}; back to step {to}", step + 1));
            }
        }
    }

    fn left_out(&self, names: &[String]) {
        for name in names {
            let before = {
                let mut summary = self.summary.borrow_mut();
                summary.left_out += 1;
                summary.left_out - 1
            };
            match before {
                0..NAMED => self.note(&format!("left out: {name}")),
                NAMED => self.note("more samples are left out; they are counted"),
                _ => {}
            }
        }
    }

    fn validated(&self, step: u64, judged: &Measured) {
        self.summary.borrow_mut().valid = Some(judged.loss);
        self.note(&format!(
            "step {step}: validation {}",
            losses(judged.loss, judged.loss_text, judged.loss_image)
        ));
    }

    fn step(&mut self, row: &Row) {
        {
            let mut summary = self.summary.borrow_mut();
            summary.step = row.step;
            summary.loss = row.loss.or(summary.loss);
            summary.skipped += usize::from(row.skipped.is_some());
        }
        if let Some(reason) = &row.skipped {
            self.note(&format!("step {}: left out: {reason}", row.step));
        }
        let now = Instant::now();
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((row.step, now));
        let interval = if self.terminal { LINE } else { LOG };
        if !self.wanted || self.shown.is_some_and(|shown| now - shown < interval) {
            return;
        }
        self.shown = Some(now);
        let line = self.line(row);
        if self.terminal {
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        } else {
            report::note(&line);
        }
    }

    fn line(&self, row: &Row) -> String {
        let steps = self.summary.borrow().steps;
        let each = seconds_a_step(&self.recent);
        let left = each * steps.saturating_sub(row.step) as f64;
        let loss = losses(row.loss.unwrap_or(f64::NAN), row.loss_text, row.loss_image);
        format!(
            "step {} of {steps}, {loss}, {each:.2} s a step, {:.0} tokens/s, {} left",
            row.step,
            row.tokens_per_second,
            duration(left)
        )
    }

    /// A line that stays.
    fn note(&self, text: &str) {
        if !self.wanted {
            return;
        }
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        report::note(text);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.wanted && self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// From the first to the last of these steps.
fn seconds_a_step(recent: &VecDeque<(u64, Instant)>) -> f64 {
    let [(first, start), (last, end)] = [recent[0], recent[recent.len() - 1]];
    (end - start).as_secs_f64() / last.saturating_sub(first).max(1) as f64
}

fn losses(all: f64, text: Option<f64>, image: Option<f64>) -> String {
    let parts = [("text", text), ("image", image)];
    let parts =
        parts.iter().filter_map(|(name, loss)| loss.map(|loss| format!("{name} {loss:.3}")));
    let parts: Vec<String> = parts.collect();
    match parts.len() {
        2 => format!("loss {all:.3} ({})", parts.join(", ")),
        _ => format!("loss {all:.3}"),
    }
}

/// Seconds as people say them.
pub fn duration(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        _ if minutes < 90.0 => format!("{minutes:.0} min"),
        _ if minutes < 48.0 * 60.0 => format!("{:.1} h", minutes / 60.0),
        _ => format!("{:.1} days", minutes / 60.0 / 24.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_the_unit_people_use() {
        let told: Vec<String> = [5.0, 600.0, 7200.0, 400_000.0].map(duration).to_vec();
        assert_eq!(told, ["5 s", "10 min", "2.0 h", "4.6 days"]);
    }

    #[test]
    fn the_newest_steps_say_how_long_the_others_take() {
        let summary = Rc::new(RefCell::new(Summary::new(PathBuf::new(), 1000)));
        let mut watch = Watch::new(summary, false);
        let row = |step| Row { step, ..Row::default() };
        (1..=3 * RECENT as u64).for_each(|step| watch.step(&row(step)));
        assert_eq!(watch.recent.len(), RECENT + 1);
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        // Ten steps of two seconds, whatever came before.
        watch.recent = (0..=10).map(|i| (500 + i, at(2 * i))).collect();
        assert_eq!(seconds_a_step(&watch.recent), 2.0);
        let alone = VecDeque::from([(7, start)]);
        assert_eq!(seconds_a_step(&alone), 0.0);
    }

    #[test]
    fn both_losses_are_named_where_there_are_two() {
        assert_eq!(losses(2.0, Some(2.0), None), "loss 2.000");
        assert_eq!(losses(2.5, Some(2.0), Some(3.0)), "loss 2.500 (text 2.000, image 3.000)");
    }
}
