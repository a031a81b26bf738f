//! One log in the care of a worker: what its appender left when it died goes to its volume, and what it need not keep goes, while nobody appends.
//!
//! What this room promises:
//! 1. Whoever appends finds nobody: what is done here keeps him waiting for some milliseconds, once, and refuses him nothing.
//! 2. Each change of how it stands is told once, and so is each shipment and each truncation.
//! 3. A log that is named and has no volume yet is waited for. None is begun here.

use crate::caretaker::Charges;
use crate::keeper::{Event, PAUSE, PAUSE_MAX, Stop, TICK};
use littoral_engine::Components;
use littoral_engine::hand_over::NOBODY;
use littoral_engine::logs::{Tended, Tender};
use littoral_engine::runtime::Runtime;
use littoral_engine::settings::Settings;
use littoral_types::Epoch;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Keeps one log.
pub struct LogKeeper<'a> {
    /// Its folder.
    pub path: PathBuf,
    /// Whether it was named: then it is waited for.
    pub is_named: bool,
    /// How it is looked after.
    pub settings: Arc<Settings>,
    /// With what.
    pub components: Components,
    /// Where it is told how it stands.
    pub tell: &'a (dyn Fn(&Path, Event) + Sync),
    /// When to end.
    pub stop: &'a Stop,
    /// Who prunes, verifies and proves its volume.
    pub charges: &'a Charges,
}

/// How it was told to stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Stands {
    #[default]
    Untold,
    Away,
    Ships,
    By,
    Ill(String),
    Fenced(Epoch, String),
    Released(Epoch),
}

impl LogKeeper<'_> {
    /// Until it is to end, or the log is gone. `tried` when it was looked at for the first time.
    pub fn run(self, runtime: &Runtime, tried: impl FnOnce()) {
        let mut tender = Tender::of(&self.path, &self.settings, &self.components);
        let (mut tried, mut stands) = (Some(tried), Stands::Untold);
        let (mut failures, mut next) = (0, Instant::now());
        loop {
            if Instant::now() >= next {
                // Cut off, it is like one whose worker was killed: the next one goes on.
                let Some(tended) = runtime.run_unless(self.stop.cut(), tender.look()) else { break };
                if let Err(error) = &tended {
                    next = Instant::now() + PAUSE.saturating_mul(1 << failures).min(PAUSE_MAX);
                    failures = (failures + 1).min(8);
                    tracing::debug!(log = %self.path.display(), %error, "a log is looked at again later");
                } else {
                    failures = 0;
                }
                let is_ours = matches!(tended, Ok(Tended::Whole(..) | Tended::Appends(_) | Tended::AtWork));
                self.charges.set(&self.path, Some(&self.settings).filter(|_| is_ours));
                let is_gone = matches!(tended, Ok(Tended::Gone));
                self.told(&mut stands, tended);
                if is_gone && !self.is_named {
                    break;
                }
            }
            if let Some(tried) = tried.take() {
                tried();
            }
            if self.stop.within(TICK) {
                break;
            }
        }
        if let Some(tried) = tried.take() {
            tried();
        }
        self.charges.set(&self.path, None);
    }

    fn told(&self, stands: &mut Stands, tended: Result<Tended, littoral_engine::EngineError>) {
        let tell = |event| (self.tell)(&self.path, event);
        let was = stands.clone();
        let now = match &tended {
            Ok(Tended::Gone) => Stands::Away,
            Ok(Tended::Whole(..)) => Stands::Ships,
            Ok(Tended::Appends(_)) => Stands::By,
            // It goes on with the next look.
            Ok(Tended::AtWork) => was.clone(),
            Ok(Tended::Fenced(epoch, owner)) if owner == NOBODY => Stands::Released(*epoch),
            Ok(Tended::Fenced(epoch, owner)) => Stands::Fenced(*epoch, owner.clone()),
            Ok(Tended::Released(epoch)) => Stands::Released(*epoch),
            Err(error) => Stands::Ill(error.to_string()),
        };
        let position = match &tended {
            Ok(Tended::Whole(position, ..)) => *position,
            _ => None,
        };
        if let Ok(Tended::Whole(_, shipped, gone)) = &tended {
            if shipped.records > 0 || shipped.sealed > 0 {
                tell(Event::Shipped { records: shipped.records, bytes: shipped.bytes, position });
            }
            if let Some(gone) = gone {
                tell(Event::LetGo { segments: gone.segments, bytes: gone.bytes, start: gone.start });
            }
        }
        if now == was {
            return;
        }
        *stands = now;
        match (&*stands, was) {
            (Stands::Untold, _) => {}
            (Stands::Away, Stands::Untold) => tell(Event::Waits),
            (Stands::Away, _) => tell(Event::Gone),
            (Stands::Ships, Stands::Ill(_)) => tell(Event::Recovers(position)),
            (Stands::Ships, _) => tell(Event::Ships(position)),
            (Stands::By, _) => tell(Event::StandsBy),
            (Stands::Ill(why), _) => tell(Event::Fails(why.clone())),
            (Stands::Fenced(epoch, owner), _) => tell(Event::Fenced(*epoch, owner.clone())),
            (Stands::Released(epoch), _) => tell(Event::Released(*epoch)),
        }
    }
}
