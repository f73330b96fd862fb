//! `--dry-run`: what would train, and what it would take.

use std::fmt::Write;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use janus_train::config::TrainConfig;
use janus_train::parts::{self, Description};
use janus_train::trainer::{Forecast, Job};
use serde_json::{Value, json};

use super::watch::duration;
use super::{Stage, Work, options};
use crate::args::RunArgs;
use crate::device::Found;
use crate::machine;
use crate::report::{self, Failure, Verdict};
use crate::units::size;

/// Work of the products that tell how fast a device is.
const PROBE: [usize; 3] = [512, 2048, 2048];
/// As long as they are repeated.
const PROBED: Duration = Duration::from_millis(300);

/// Says it, and whether memory and disk will do.
pub fn show(works: Vec<Work>, args: &RunArgs, found: &Found) -> Result<Verdict, Failure> {
    let speed = speed(&found.device);
    let (mut text, mut values) = (String::new(), Vec::new());
    for work in works {
        let Stage { config, output } = match work {
            Work::Stage(stage) => *stage,
            Work::Part { recipe, overrides, output } => {
                let plan = parts::describe(&recipe, &overrides, &found.device)?;
                text += &described(&plan, &output.display().to_string(), found.memory());
                values.push(json!(plan));
                continue;
            }
        };
        let job = Job::open(config, options(args, &found.device))?;
        let plan = Plan {
            forecast: job.forecast(),
            speed,
            memory: found.memory(),
            disk: machine::free_space(&output),
        };
        text += &plan.text(job.config(), &output.display().to_string());
        values.push(plan.value(job.config()));
    }
    match args.json {
        true => report::print_json(&json!({ "stages": values }))?,
        false => report::print(&text)?,
    }
    Ok(Verdict::Yes)
}

/// What a network that is trained apart takes.
fn described(plan: &Description, output: &str, had: Option<u64>) -> String {
    let mut text = format!("{} in {output}\n", plan.name);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<18}{value}");
    };
    for network in &plan.networks {
        let end = if network.kept { "" } else { ", thrown away in the end" };
        line(&network.name, format!("{:>15} train{end}", grouped(network.parameters)));
    }
    line("steps", format!("{} of {} samples, {} in the data", plan.steps, plan.samples, plan.data));
    let had = had.map(|b| format!(", {} can be had", size(b))).unwrap_or_default();
    line("memory", format!("{}{had}", size(plan.memory.total())));
    line("checkpoint", size(plan.checkpoint));
    text
}

/// Floating-point operations in a second, as products of matrices reach them.
fn speed(device: &Device) -> f64 {
    let [rows, inner, columns] = PROBE;
    let random = |shape| Tensor::<2>::random(shape, Distribution::Default, device);
    let (a, b) = (random([rows, inner]), random([inner, columns]));
    // The first one may compile kernels.
    drop(a.clone().matmul(b.clone()).sum().into_data());
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < PROBED {
        drop(a.clone().matmul(b.clone()).sum().into_data());
        count += 1;
    }
    let work = 2.0 * (rows * inner * columns) as f64 * f64::from(count);
    work / start.elapsed().as_secs_f64()
}

struct Plan {
    forecast: Forecast,
    speed: f64,
    memory: Option<u64>,
    disk: Option<u64>,
}

impl Plan {
    /// Seconds of a step, if products were all there is.
    fn step(&self) -> f64 {
        self.forecast.flops / self.speed
    }

    /// Bytes that checkpoints take at most, the one being written included.
    fn needed(&self, config: &TrainConfig) -> u64 {
        let Forecast { checkpoint, frozen, .. } = self.forecast;
        let steps = config.steps / config.save.every.max(1) + 1;
        let kept = if config.save.keep == 0 { steps } else { config.save.keep + config.save.best };
        frozen + checkpoint * (kept.min(steps) as u64 + 1)
    }

    fn text(&self, config: &TrainConfig, output: &str) -> String {
        let Forecast { parts, steps, samples, tokens, memory, .. } = &self.forecast;
        let mut text = format!("{} in {output}\n", config.name);
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<18}{value}");
        };
        let (mut trained, mut all) = (0, 0);
        for part in parts {
            trained += part.trained;
            all += part.trained + part.frozen;
            let what = match (part.trained, part.frozen) {
                (0, frozen) => format!("{:>15} stay", grouped(frozen)),
                (trained, 0) => format!("{:>15} train", grouped(trained)),
                (trained, frozen) => {
                    format!("{:>15} train, {} stay", grouped(trained), grouped(frozen))
                }
            };
            line(&part.name, what);
        }
        line("together", format!("{:>15} train, of {}", grouped(trained), grouped(all)));
        line("steps", format!("{steps} of {samples} samples, about {tokens} tokens each"));
        let parts = [
            ("weights", memory.weights),
            ("gradients", memory.gradients),
            ("optimizer", memory.optimizer),
            ("activations", memory.activations),
        ];
        let parts = parts.map(|(name, bytes)| format!("{name} {}", size(bytes))).join(", ");
        let had = self.memory.map(|b| format!(", {} can be had", size(b))).unwrap_or_default();
        line("memory", format!("{}{had} ({parts})", size(memory.total())));
        let free = self.disk.map(|b| format!(", {} free", size(b))).unwrap_or_default();
        line("disk", format!("{}{free}", size(self.needed(config))));
        let all = self.step() * *steps as f64;
        line("time", format!("at least {}, {} a step", duration(all), precise(self.step())));
        text
    }

    fn value(&self, config: &TrainConfig) -> Value {
        json!({
            "name": config.name,
            "stage": config.stage,
            "forecast": self.forecast,
            "memory_total": self.forecast.memory.total(),
            "memory_available": self.memory,
            "disk": self.needed(config),
            "disk_free": self.disk,
            "step_seconds": self.step(),
            "seconds": self.step() * self.forecast.steps as f64,
        })
    }
}

fn precise(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.2} s") } else { duration(seconds) }
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(2_048_000), "2,048,000");
    }
}
