//! Which connections are open, whose they are, and which of them makes room when there are too many.
//!
//! Up to a limit every connection is taken. At the limit the client that holds the most loses one of its own: the one
//! that has been idle longest, or else the one that has been slow longest (a body that trickles in, an answer that is
//! not read). A connection whose request is being worked on is never closed. Where nothing can be closed, a client that
//! holds few connections still gets one of a reserve; another one is refused.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::telemetry;

/// A request that is sent or an answer that is read for longer than this may be cut off for the same client's next.
const SLOW: Duration = Duration::from_secs(1);
/// A client with no more connections than this is quiet.
const QUIET: usize = 4;

/// Where a connection comes from: an IPv4 address or an IPv6 network of 64 bits, which is what one subscriber has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & !(u64::MAX as u128)).into()),
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => address.fmt(f),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// All connections of one port.
#[derive(Debug)]
pub struct Table {
    port: &'static str,
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
    clients: HashMap<Network, usize>,
}

/// One connection: what it does, and how it is told to close.
#[derive(Debug)]
pub struct Connection {
    client: Network,
    /// A proxy's connection carries many clients and is closed last.
    proxy: bool,
    opened: Instant,
    evicted: Notify,
    activity: Mutex<Activity>,
}

#[derive(Debug)]
struct Activity {
    /// Requests of which the head was read and the answer is not out.
    requests: usize,
    /// Those of them that are worked on: the body is here, the answer is not begun.
    working: usize,
    /// Since when it has been as idle or as slow as it is.
    since: Instant,
    /// When the first byte of the next head came.
    head_began: Option<Instant>,
    /// Whether a request has been seen, and whether the last one was HTTP/2.
    served: bool,
    http2: bool,
}

/// A place in the table for as long as this lives.
#[derive(Debug)]
pub struct Place {
    table: Weak<Table>,
    id: u64,
    /// The connection.
    pub connection: Arc<Connection>,
}

impl Table {
    /// A table for about so many connections; `port` names it in the metrics.
    pub fn new(port: &'static str, limit: usize) -> Arc<Self> {
        Arc::new(Self { port, limit, open: Mutex::default() })
    }

    /// Connections open now.
    pub fn len(&self) -> usize {
        self.open().connections.len()
    }

    /// Whether a connection has a request that is not answered.
    pub fn is_busy(&self) -> bool {
        self.open().connections.values().any(|connection| connection.activity().requests > 0)
    }

    /// A place for a new connection, made by closing another one where that is needed; none if nothing can be closed.
    pub fn enter(self: &Arc<Self>, address: IpAddr, proxy: bool, now: Instant) -> Option<Place> {
        let client = Network::of(address);
        let mut open = self.open();
        if open.connections.len() >= self.limit && !self.make_room(&mut open, client, now) {
            metrics::counter!(telemetry::CONNECTIONS_REFUSED, "port" => self.port).increment(1);
            return None;
        }
        let connection = Arc::new(Connection::new(client, proxy, now));
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, Arc::clone(&connection));
        *open.clients.entry(client).or_default() += 1;
        self.count(&open);
        Some(Place { table: Arc::downgrade(self), id, connection })
    }

    /// Whether there is room for a connection of `client`, after closing one where that is needed.
    fn make_room(&self, open: &mut Open, client: Network, now: Instant) -> bool {
        // The newcomer counts: a client at its fair share loses one of its own and not one of another's.
        let held = |of: &Network| open.clients.get(of).copied().unwrap_or(0) + usize::from(*of == client);
        let own = held(&client);
        let candidates = open.connections.iter().filter_map(|(&id, connection)| {
            let (idleness, of) = (connection.idleness(now)?, connection.client);
            // A client's newest connection is no better than its others: an upload that goes on is left alone.
            let may = if of == client { idleness.idle || idleness.by >= SLOW } else { held(&of) > own };
            may.then_some((!connection.proxy, held(&of), of, idleness, id))
        });
        if let Some((.., id)) = candidates.max() {
            self.remove(open, id, "share");
            return true;
        }
        let reserve = (self.limit / 8).max(QUIET);
        own <= QUIET && open.connections.len() < self.limit + reserve
    }

    fn remove(&self, open: &mut Open, id: u64, reason: &'static str) {
        let Some(connection) = open.connections.remove(&id) else { return };
        connection.evicted.notify_one();
        open.forget(connection.client);
        self.count(open);
        self.closed(reason);
    }

    /// Counts a connection that the service closed.
    pub fn closed(&self, reason: &'static str) {
        metrics::counter!(telemetry::CONNECTIONS_CLOSED, "port" => self.port, "reason" => reason)
            .increment(1);
    }

    fn count(&self, open: &Open) {
        metrics::gauge!(telemetry::CONNECTIONS, "port" => self.port).set(open.connections.len() as f64);
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn forget(&mut self, client: Network) {
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let mut open = table.open();
        if open.connections.remove(&self.id).is_some() {
            open.forget(self.connection.client);
            table.count(&open);
        }
    }
}

/// How soon a connection makes room: idle ones before slow ones, the longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Idleness {
    idle: bool,
    by: Duration,
}

impl Connection {
    fn new(client: Network, proxy: bool, now: Instant) -> Self {
        let activity =
            Activity { requests: 0, working: 0, since: now, head_began: None, served: false, http2: false };
        Self { client, proxy, opened: now, evicted: Notify::new(), activity: Mutex::new(activity) }
    }

    /// Ready when the connection must close to make room.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn idleness(&self, now: Instant) -> Option<Idleness> {
        let activity = self.activity();
        let by = now.saturating_duration_since(activity.since);
        match (activity.requests, activity.working) {
            (0, _) => Some(Idleness { idle: true, by }),
            (_, 0) => Some(Idleness { idle: false, by }),
            _ => None,
        }
    }

    /// When it should be closed for doing nothing; none while there is a request.
    pub fn expires(&self, header_timeout: Duration, keep_alive: Duration) -> Option<Instant> {
        let activity = self.activity();
        match *activity {
            Activity { requests: 1.., .. } => None,
            Activity { served: false, .. } => Some(self.opened + header_timeout),
            // Pings are bytes too: on HTTP/2 only requests count.
            Activity { head_began: Some(began), http2: false, .. } => Some(began + header_timeout),
            Activity { since, .. } => Some(since + keep_alive),
        }
    }

    /// Bytes came in.
    pub fn read(&self) {
        let mut activity = self.activity();
        if activity.requests == 0 && activity.head_began.is_none() {
            activity.head_began = Some(Instant::now());
        }
    }

    /// The head of a request was read.
    pub fn request(self: &Arc<Self>, http2: bool) -> Arc<InFlight> {
        let mut activity = self.activity();
        activity.requests += 1;
        activity.head_began = None;
        activity.served = true;
        activity.http2 = http2;
        activity.since = Instant::now();
        drop(activity);
        Arc::new(InFlight { connection: Arc::clone(self), working: AtomicBool::new(false) })
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its connection, until its answer is out.
#[derive(Debug)]
pub struct InFlight {
    connection: Arc<Connection>,
    working: AtomicBool,
}

impl InFlight {
    /// Its body is here, or its answer has begun.
    pub fn work(&self, working: bool) {
        if self.working.swap(working, Ordering::AcqRel) == working {
            return;
        }
        let mut activity = self.connection.activity();
        if working {
            activity.working += 1;
        } else {
            activity.working -= 1;
            activity.since = Instant::now();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.work(false);
        let mut activity = self.connection.activity();
        activity.requests -= 1;
        activity.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn evicted(place: &Place) -> bool {
        place.table.upgrade().is_none_or(|table| !table.open().connections.contains_key(&place.id))
    }

    #[test]
    fn the_oldest_idle_connection_of_the_client_with_most_makes_room() {
        let (table, start) = (Table::new("main", 4), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let (greedy, quiet) = (address("10.0.0.1"), address("10.0.0.2"));
        let first = table.enter(quiet, false, at(0)).expect("room");
        let many: Vec<Place> = (1..4).map(|i| table.enter(greedy, false, at(i)).expect("room")).collect();
        let _new = table.enter(quiet, false, at(5)).expect("made");
        assert!(evicted(&many[0]) && !evicted(&many[1]) && !evicted(&first));
        let _own = table.enter(greedy, false, at(6)).expect("made");
        assert!(evicted(&many[1]) && !evicted(&first), "its own goes, not the quiet client's");
        assert_eq!(table.len(), 4);
    }

    #[test]
    fn work_is_never_closed_and_a_quiet_client_has_a_reserve() {
        let (table, start) = (Table::new("main", 2), Instant::now());
        let greedy = address("10.0.0.1");
        let places: Vec<Place> = (0..2).map(|_| table.enter(greedy, false, start).expect("room")).collect();
        let requests: Vec<Arc<InFlight>> =
            places.iter().map(|place| place.connection.request(false)).collect();
        requests.iter().for_each(|request| request.work(true));
        let later = start + Duration::from_secs(60);
        let quiet = table.enter(address("10.0.0.2"), false, later);
        assert!(quiet.is_some() && places.iter().all(|place| !evicted(place)));
        drop(quiet);
        // One answer is not read: that connection is slow, and goes.
        requests[1].work(false);
        assert!(table.enter(address("10.0.0.2"), false, later).is_some());
        assert!(!evicted(&places[0]) && evicted(&places[1]));
    }

    #[test]
    fn a_proxys_connections_go_last() {
        let (table, start) = (Table::new("main", 3), Instant::now());
        let proxy: Vec<Place> =
            (0..2).map(|_| table.enter(address("10.0.0.9"), true, start).expect("room")).collect();
        let direct = table.enter(address("10.0.0.1"), false, start).expect("room");
        let _new = table.enter(address("10.0.0.1"), false, start).expect("made");
        assert!(evicted(&direct) && proxy.iter().all(|place| !evicted(place)));
    }

    #[test]
    fn one_subscriber_of_ipv6_is_one_client() {
        let network = |text| Network::of(address(text));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::2"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_eq!(network("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn what_idles_expires() {
        let (table, start) = (Table::new("main", 2), Instant::now());
        let place = table.enter(address("10.0.0.1"), false, start).expect("room");
        let (header, keep) = (Duration::from_secs(30), Duration::from_secs(75));
        let expires = || place.connection.expires(header, keep);
        assert_eq!(expires(), Some(start + header));
        let request = place.connection.request(true);
        assert_eq!(expires(), None);
        drop(request);
        place.connection.read();
        assert!(expires().expect("idle") >= start + keep, "a ping is not a head");
        drop(place.connection.request(false));
        place.connection.read();
        assert!(expires().expect("a head has begun") < start + keep);
    }
}
