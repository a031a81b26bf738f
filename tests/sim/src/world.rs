//! A world from a seed: machines, a network, rounds of life, disasters between them, and a look at everything when all rest.

use crate::chance::Chance;
use crate::check::{Depth, check};
use crate::database::Shape;
use crate::life::live;
use crate::machine::{DiskImage, Machine, Surroundings, volume};
use crate::mutation::Mutation;
use crate::net::{Net, Weather};
use crate::oracle::Oracle;
use crate::time::{DAY_MS, SimClock};
use crate::trace::Trace;
use anyhow::{Context, ensure};
use futures::future::join_all;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Steps of each machine between two looks.
const STEPS_PER_ROUND: u64 = 12;

/// What a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Decides everything.
    pub seed: u64,
    /// Steps of all machines together, at least.
    pub steps: u64,
    /// Shows the trace as it grows.
    pub loud: bool,
    /// A step that all machines do wrongly.
    pub mutation: Option<Mutation>,
    /// Prunes are followed by moves out of packs that are mostly dead, and some of them delete nothing.
    pub repacks: bool,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Every request, answer and event.
    pub trace: String,
    /// Records of the log.
    pub records: usize,
    /// Steps that were made.
    pub steps: u64,
    /// What was wrong; `None` when nothing was.
    pub failure: Option<String>,
}

/// A place of its own for a seed: always the same path, so that whatever holds it is the same in every run.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    fn take(seed: u64) -> anyhow::Result<Self> {
        let base = std::env::temp_dir().join("littoral-sim");
        fs::create_dir_all(&base)?;
        let lock = File::create(base.join(format!("{seed}.lock")))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let path = base.join(seed.to_string());
        if path.exists() {
            fs::remove_dir_all(&path).context("what an earlier run left")?;
        }
        fs::create_dir(&path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is removed by the next run of this seed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Time, network and watch for a seed; machines are added to it.
pub struct World {
    /// Drives everything; its time is simulated.
    pub runtime: Runtime,
    /// What machines share.
    pub around: Surroundings,
    place: Place,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64, loud: bool) -> anyhow::Result<Self> {
        let place = Place::take(seed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let start = runtime.block_on(async { Instant::now() });
        let oracle = Arc::new(Oracle::new(volume()?));
        let trace = Arc::new(Trace::new(start, loud));
        let clock = Arc::new(SimClock::new(start));
        let net = Net::new(oracle.clone(), trace.clone(), clock, Chance::stream(seed, "network"));
        let around = Surroundings { net, oracle, trace, start, base: place.path.clone(), seed };
        Ok(Self { runtime, around, place })
    }

    /// Time passes.
    pub fn pass(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    /// Looks at everything that must hold.
    pub fn check(&self, chance: &Chance, depth: Depth) -> anyhow::Result<()> {
        check(&self.around.net.server, &self.around.oracle, &self.place.path, chance, depth)
    }
}

/// Runs a seed. An error is the simulator's own; what the engine did wrong is in [`Run::failure`].
pub fn run(settings: Settings) -> anyhow::Result<Run> {
    let world = World::new(settings.seed, settings.loud)?;
    if let Some(mutation) = settings.mutation {
        world.around.net.mutate("", mutation);
    }
    let mut life = Life::new(&world, &settings)?;
    let failure = life.whole(settings.steps).err();
    let records = world.around.oracle.records().len();
    let trace = world.around.trace.text();
    Ok(Run { trace, records, steps: life.steps, failure: failure.map(|error| format!("{error:#}")) })
}

struct Life<'a> {
    world: &'a World,
    chance: Chance,
    /// Looking is not to disturb what is looked at.
    looking: Chance,
    machines: Vec<Machine>,
    backup: Option<DiskImage>,
    steps: u64,
}

impl<'a> Life<'a> {
    fn new(world: &'a World, settings: &Settings) -> anyhow::Result<Self> {
        let seed = settings.seed;
        let chance = Chance::stream(seed, "world");
        let mut machines = Vec::new();
        for name in ["a", "b", "c"].iter().take(chance.between(1, 4) as usize) {
            let shape = if chance.per_mille(100) { Shape::Wide } else { Shape::Small };
            let mut machine = Machine::new(&world.around, name, shape)?;
            machine.repacks = settings.repacks;
            machines.push(machine);
        }
        let looking = Chance::stream(seed, "looking");
        Ok(Self { world, chance, looking, machines, backup: None, steps: 0 })
    }

    fn whole(&mut self, steps: u64) -> anyhow::Result<()> {
        let mut round = 0;
        while self.steps < steps {
            round += 1;
            self.round();
            let depth = if round % 8 == 0 { Depth::Whole } else { Depth::Glance };
            self.world.check(&self.looking, depth).with_context(|| format!("after round {round}"))?;
            self.disasters().context("a disaster")?;
        }
        self.rest();
        self.world.check(&self.looking, Depth::Whole).context("at rest")?;
        self.owner_goes_on()?;
        self.world.check(&self.looking, Depth::Whole).context("in the end")
    }

    fn round(&mut self) {
        let net = &self.world.around.net;
        net.set_weather(if self.chance.per_mille(300) { Weather::CALM } else { Weather::drawn(&self.chance) });
        self.steps += STEPS_PER_ROUND * self.machines.len() as u64;
        let lives = self.machines.iter_mut().map(|machine| live(machine, STEPS_PER_ROUND));
        self.world.runtime.block_on(join_all(lives));
        if self.chance.per_mille(400) {
            let pause = self.chance.between(0, 3 * DAY_MS);
            self.world.pass(Duration::from_millis(pause));
        }
    }

    /// What befalls machines from outside.
    fn disasters(&mut self) -> anyhow::Result<()> {
        let at = self.chance.between(0, self.machines.len() as u64) as usize;
        let drawn = self.chance.between(0, 1000);
        let Some(machine) = self.machines.get_mut(at) else { return Ok(()) };
        // The trace is dated by the runtime's time.
        let _within = self.world.runtime.enter();
        let say = |what: &str| self.world.around.trace.line(&machine.name, format_args!("{what}"));
        match drawn {
            0..40 => {
                say("loses its directory");
                machine.lose_directory()?;
                machine.excused = true;
            }
            40..80 => {
                say("loses its manifest");
                machine.lose_manifest();
                machine.excused = true;
            }
            80..180 => {
                say("is backed up");
                self.backup = Some(machine.disk());
            }
            180..220 => {
                if let Some(backup) = &self.backup {
                    say("is restored from a backup");
                    machine.restore_disk(backup)?;
                    self.machines.iter_mut().for_each(|machine| machine.excused = true);
                }
            }
            220..320 => {
                say("is killed");
                machine.kill();
            }
            _ => {}
        }
        Ok(())
    }

    fn rest(&mut self) {
        self.world.around.net.set_weather(Weather::CALM);
        self.machines.iter_mut().for_each(Machine::close);
        // Whatever is still on its way arrives.
        self.world.pass(Duration::from_secs(3600));
    }

    /// Whoever owns the volume goes on without anybody's help (I8).
    fn owner_goes_on(&mut self) -> anyhow::Result<()> {
        let Some(tail) = self.world.around.oracle.tail() else { return Ok(()) };
        let Some(owner) = tail.owner else { return Ok(()) };
        let mut ours = None;
        for machine in self.machines.iter_mut().filter(|machine| !machine.excused) {
            if machine.store()?.id() == owner.store {
                ours = Some(machine);
            }
        }
        let Some(machine) = ours else { return Ok(()) };
        let who = machine.name.clone();
        self.world.runtime.block_on(async {
            machine.open(None).await.with_context(|| format!("{who} owns the volume and cannot open it"))?;
            machine.commit();
            machine.publish().await.with_context(|| format!("{who} owns the volume and cannot publish"))?;
            let done = machine.publish().await.with_context(|| format!("{who} looks again"))?;
            ensure!(done.is_none(), "{who} publishes the same again: {done:?}");
            machine.close();
            Ok(())
        })
    }
}
