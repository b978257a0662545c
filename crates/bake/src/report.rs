use std::sync::Mutex;
use std::time::Instant;

/// What a count counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things: packages, files.
    Things,
}

/// Who wants to know how a bake is getting on. Called from many threads.
pub trait Report: Sync {
    /// A stage begins.
    fn started(&self, stage: &str);
    /// How far the running stage is; `total` is `None` as long as nobody knows it.
    fn progress(&self, done: u64, total: Option<u64>, unit: Unit, what: &str);
    /// Something worth a line of its own.
    fn line(&self, text: &str);
    /// Warnings about the recipe.
    fn diagnostics(&self, diagnostics: &recipe::Diagnostics) {
        self.line(diagnostics.to_string().trim_end());
    }
    /// The running stage ended well.
    fn finished(&self, stage: &Stage);
}

/// One finished stage of a bake.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Stage {
    /// Its name: `recipe`, `lock`, `packages`, `root file system`, `disk`, `store`, `write`, `check bios`, …
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that it fetched, laid out or wrote, where that says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether its result was there already.
    pub cached: bool,
}

/// Runs stages one after the other, tells the [`Report`] of each and remembers them for the summary.
pub struct Stages<'a> {
    report: &'a dyn Report,
    done: Mutex<Vec<Stage>>,
}

/// What a stage found out about itself, for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Bytes fetched, laid out or written.
    pub bytes: Option<u64>,
    /// Whether the result was there already.
    pub cached: bool,
}

impl<'a> Stages<'a> {
    /// No stage has run yet.
    pub fn new(report: &'a dyn Report) -> Self {
        Self { report, done: Mutex::new(Vec::new()) }
    }

    /// Who is told.
    pub fn report(&self) -> &'a dyn Report {
        self.report
    }

    /// Runs one stage.
    pub fn run<T, E>(&self, name: &str, work: impl FnOnce(&mut Outcome) -> Result<T, E>) -> Result<T, E> {
        self.report.started(name);
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let result = work(&mut outcome)?;
        self.ended(name, started, outcome);
        Ok(result)
    }

    /// Runs what is a stage only if it gives something: `None` leaves no trace.
    pub fn run_if<T, E>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Outcome) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let result = work(&mut outcome)?;
        if result.is_some() {
            self.report.started(name);
            self.ended(name, started, outcome);
        }
        Ok(result)
    }

    fn ended(&self, name: &str, started: Instant, outcome: Outcome) {
        let seconds = started.elapsed().as_secs_f64();
        let stage = Stage { name: name.to_owned(), seconds, bytes: outcome.bytes, cached: outcome.cached };
        self.report.finished(&stage);
        self.done.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(stage);
    }

    /// The stages that ended well, in their order.
    pub fn into_done(self) -> Vec<Stage> {
        self.done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
