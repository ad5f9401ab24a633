//! Owns what a seed means: how large the cell is, how bad its world is, and for how long.
//!
//! Everything that differs from run to run and is not drawn while it goes on is drawn here, once, so that a
//! reader of a failure sees at one place what kind of run it was.

use std::collections::BTreeSet;
use std::fmt;

use holdfast_types::Planted;

use crate::calm::Condition;
use crate::effort::Slowness;
use crate::fault::FaultMix;
use crate::ledger::Room;
use crate::overload::Overload;
use crate::rhythm::Rhythm;
use crate::rng::Rng;
use crate::upgrade;
use crate::verdict::Invariant;
use crate::workload::Theme;

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

/// What a run is asked for, beyond its seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many replicas; drawn from the seed if absent.
    pub replicas: Option<usize>,
    /// How many clients; drawn from the seed if absent.
    pub clients: Option<usize>,
    /// How long the phase of faults is, in seconds of the run.
    pub seconds: u64,
    /// Print the timeline.
    pub log: bool,
    /// Of the faults, by their numbers, only these happen; all if absent.
    pub only: Option<BTreeSet<u32>>,
    /// Conditions that are good although the seed says that they are bad.
    pub calm: BTreeSet<Condition>,
    /// The run fails in this way when the faults stop, to try out what is done with a failure.
    pub pretend: Option<Invariant>,
    /// The machines have this fault; only in builds that can plant faults.
    pub planted: Option<Planted>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            replicas: None,
            clients: None,
            seconds: 30,
            log: false,
            only: None,
            calm: BTreeSet::new(),
            pretend: None,
            planted: None,
        }
    }
}

/// How a run is set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many replicas.
    pub replicas: usize,
    /// How many client processes.
    pub clients: usize,
    /// When their applications are busy.
    pub rhythm: Rhythm,
    /// How long the phase of faults is, in nanoseconds.
    pub faults_nanos: u64,
    /// The mean time from one fault to the next, in nanoseconds.
    pub fault_every_nanos: u64,
    /// What most applications do.
    pub theme: Theme,
    /// Some clocks differ by far more than the drift bound. Then leases may be believed in for too long (I3), locks
    /// too (I1 as applications live it), lock-delays may be too short (I4) and caches stale (I5): that is counted,
    /// and not checked. Everything else is, and first of all that sequencers protect (I2).
    pub clocks_beyond: bool,
    /// How often each kind of fault comes.
    pub faults: FaultMix,
    /// What the network does to everybody while faults are on.
    pub network: NetworkConditions,
    /// Nothing goes wrong but that machines are slow.
    pub overload: Option<Overload>,
    /// What a turn of a master may cost of what clients ask for.
    pub turn_work: u64,
    /// How many requests a session may have in flight.
    pub requests_in_flight_max: u32,
    /// How many bytes clients can make a replica hold.
    pub room: Room,
    /// How slow the replicas' machines are while faults are on.
    pub slowness: Slowness,
    /// How much the socket of a stopped process takes, in bytes.
    pub socket_bytes: usize,
    /// How long a sync takes at the most while faults are on, in nanoseconds.
    pub sync_nanos_max: u64,
    /// A replica writes a snapshot after so many bytes of log: few, so that snapshots matter.
    pub snapshot_every_bytes: u64,
    /// And keeps so many behind it.
    pub log_tail_bytes: u64,
    /// The lease that clients ask for, in milliseconds.
    pub lease_ms: u64,
    /// The clients' grace period in milliseconds.
    pub grace_ms: u64,
    /// How long leases may be made by a master under load, to begin with.
    pub lease_ms_max: u32,
    /// The state version that the cell is founded at.
    pub founded_at: u32,
    /// How many KeepAlives a second are load: so few that leases are lengthened, or more than there ever are.
    pub keep_alives_per_s: u32,
}

/// What the network does, apart from partitions.
#[derive(Clone, Debug)]
pub struct NetworkConditions {
    /// The shortest flight, in nanoseconds.
    pub flight_nanos_min: u64,
    /// The longest of an ordinary flight.
    pub flight_nanos_max: u64,
    /// So many of a thousand take far longer, so that others overtake them.
    pub late_per_mille: u32,
    /// How long those take at the most.
    pub late_nanos_max: u64,
    /// So many of a thousand messages between replicas are lost; a frame of a stream is sent again instead, and
    /// all behind it wait.
    pub lost_per_mille: u32,
    /// So many of a thousand messages between replicas come twice.
    pub doubled_per_mille: u32,
    /// So many of a thousand snapshots on their way between replicas are cut off in the middle.
    pub cut_per_mille: u32,
}

impl NetworkConditions {
    /// A good network, which the healed phase has.
    #[must_use]
    pub fn calm() -> Self {
        Self {
            flight_nanos_min: 50 * MICRO,
            flight_nanos_max: 500 * MICRO,
            late_per_mille: 0,
            late_nanos_max: MILLI,
            lost_per_mille: 0,
            doubled_per_mille: 0,
            cut_per_mille: 0,
        }
    }

    fn draw(rng: &mut Rng) -> Self {
        let calm = Self::calm();
        let often = |rng: &mut Rng| [0, 0, 5, 50, 200][rng.index(5)];
        Self {
            flight_nanos_max: [300 * MICRO, 2 * MILLI, 20 * MILLI][rng.index(3)],
            late_per_mille: often(rng),
            late_nanos_max: rng.between(10, 1_000) * MILLI,
            lost_per_mille: often(rng),
            doubled_per_mille: often(rng),
            cut_per_mille: [0, 300, 600][rng.index(3)],
            ..calm
        }
    }
}

impl Plan {
    /// The longest sync of a good disk, in nanoseconds.
    pub const CALM_SYNC_NANOS: u64 = MILLI / 5;

    /// What `seed` means, as far as the options leave it to the seed.
    #[must_use]
    pub fn draw(seed: u64, options: &Options) -> Self {
        let mut plan = Self::draw_all(seed, options);
        for condition in &options.calm {
            condition.calm(&mut plan);
        }
        plan
    }

    fn draw_all(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::fork(seed, "plan");
        let replicas = if rng.per_mille(250) { 5 } else { 3 };
        let crowded = rng.per_mille(100);
        let clients = if crowded { rng.between(9, 30) } else { rng.between(3, 8) } as usize;
        let clients = options.clients.unwrap_or(clients);
        // Many sessions with the shortest leases would do little but keep them.
        let shortest_lease_ms = if clients > 8 { 2_000 } else { 400 };
        let mut plan = Self {
            replicas: options.replicas.unwrap_or(replicas),
            clients,
            rhythm: Rhythm::draw(&mut Rng::fork(seed, "rhythm"), clients),
            faults_nanos: options.seconds * 1_000 * MILLI,
            theme: Theme::draw(&mut Rng::fork(seed, "theme")),
            fault_every_nanos: rng.between(500, 6_000) * MILLI,
            clocks_beyond: Rng::fork(seed, "clocks").per_mille(80),
            faults: FaultMix::draw(&mut Rng::fork(seed, "mix")),
            network: NetworkConditions::draw(&mut rng),
            turn_work: [1 << 20, 1 << 20, 64 << 10, 8 << 10][Rng::fork(seed, "work").index(4)],
            requests_in_flight_max: [4_096, 4_096, 4_096, 64][Rng::fork(seed, "in flight").index(4)],
            room: Room::draw(&mut Rng::fork(seed, "ledger")),
            overload: None,
            slowness: Slowness::draw(&mut Rng::fork(seed, "slowness")),
            socket_bytes: [4 << 20, 256 << 10, 2 << 10][Rng::fork(seed, "sockets").index(3)],
            sync_nanos_max: [Self::CALM_SYNC_NANOS, 2 * MILLI, 30 * MILLI][rng.index(3)],
            // So few that whoever was away for a moment needs a snapshot; in some runs he hardly ever does.
            snapshot_every_bytes: drawn_below(&mut rng, 300, [600, 2_000, 16_000]),
            // Sometimes so many that the snapshot before the last still joins the log.
            log_tail_bytes: drawn_below(&mut rng, 0, [100, 4_000, 64_000]),
            lease_ms: [shortest_lease_ms, 1_000, 3_000, 5_000, 12_000][rng.index(5)],
            grace_ms: rng.between(2, 20) * 1_000,
            lease_ms_max: [100, 100, 3_000, 15_000][rng.index(4)],
            founded_at: upgrade::founded_at(seed),
            keep_alives_per_s: [20_000, 20_000, 4, 1][rng.index(4)],
        };
        let mut rng = Rng::fork(seed, "overload");
        if plan.theme == Theme::Greedy && rng.per_mille(500) {
            plan.overload_machines(&mut rng);
        }
        plan
    }
}

/// From `first` up to one of three ends.
fn drawn_below(rng: &mut Rng, first: u64, ends: [u64; 3]) -> u64 {
    let end = ends[rng.index(3)];
    rng.between(first, end)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = &self.network;
        write!(
            f,
            "theme {:?}, {} replicas, {} clients with leases of {} ms (at {} KeepAlives a second up to {} ms) and a grace of {} ms, \
             {}; a fault every {} ms for {} s; \
             flights up to {} us, of a thousand {} late (up to {} ms), {} lost, {} doubled, sockets of {} bytes; {} of a thousand machines up to {} times as slow, each turn {} ms longer, {} work in it at the most, {} requests in flight, {}, syncs up to {} us; \
             a snapshot every {} bytes, {} bytes of log behind it, {} of a thousand cut off on their way; {}",
            self.theme,
            self.replicas,
            self.clients,
            self.lease_ms,
            self.keep_alives_per_s,
            self.lease_ms_max,
            self.grace_ms,
            self.rhythm,
            self.fault_every_nanos / MILLI,
            self.faults_nanos / MILLI / 1_000,
            network.flight_nanos_max / MICRO,
            network.late_per_mille,
            network.late_nanos_max / MILLI,
            network.lost_per_mille,
            network.doubled_per_mille,
            self.socket_bytes,
            self.slowness.slow_per_mille,
            self.slowness.times_max,
            self.slowness.turn_nanos / MILLI,
            self.turn_work,
            self.requests_in_flight_max,
            self.room,
            self.sync_nanos_max / MICRO,
            self.snapshot_every_bytes,
            self.log_tail_bytes,
            network.cut_per_mille,
            self.faults,
        )?;
        if self.founded_at < holdfast_state::VERSION_MAX {
            write!(f, "; founded at state version {}", self.founded_at)?;
        }
        if let Some(overload) = self.overload {
            write!(f, "; {overload}")?;
        }
        if self.clocks_beyond {
            f.write_str("; clocks beyond the drift bound: what is promised by the clock (I3, I4, beliefs, caches) is not checked")?;
        }
        Ok(())
    }
}
