//! `janus data scenes`: a small world in which everything is known, as files to train on.

use janus_train::scenes::DataSet;
use serde_json::json;

use crate::args::DataScenesArgs;
use crate::interrupt;
use crate::progress::Items;
use crate::report::{self, Failure, Verdict};
use crate::units::plural;

/// Runs the command.
pub fn run(args: &DataScenesArgs) -> Result<Verdict, Failure> {
    let set =
        DataSet { seed: args.seed, split: args.split, count: args.count.into(), size: args.size };
    interrupt::listen();
    let mut items = Items::new("drawn", 0, args.count as usize);
    let result = set.write(&args.output, |done| {
        items.reach(done as usize);
        interrupt::flow()
    });
    items.finish();
    let Some(written) = result? else {
        report::note("stopped: nothing was written");
        return Ok(Verdict::Interrupted);
    };
    let (dir, split) = (args.output.display(), args.split.name());
    match args.json {
        true => report::print_json(&json!({
            "output": args.output, "split": split, "seed": args.seed, "size": args.size,
            "scenes": written.scenes, "questions": written.questions,
        }))?,
        false => {
            let scenes = plural(written.scenes as usize, "scene");
            let questions = plural(written.questions as usize, "question");
            report::print(&format!("{dir}: {scenes} of {split}, {questions}\n"))?;
        }
    }
    Ok(Verdict::Yes)
}
