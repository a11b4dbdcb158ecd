//! Several streams into one loaded model: a Unix socket, or TCP on the loopback interface.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::{Summary, Worker};
use crate::bulk::fault::{Fault, Kind};

/// After a connection could not be taken (no file descriptors), the next one is tried so much later.
const PAUSE: Duration = Duration::from_millis(100);

/// Where streams come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `tcp:127.0.0.1:PORT`
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let tcp = text.strip_prefix("tcp:").map(|address| {
            let local = address.strip_prefix("localhost:").and_then(|port| port.parse().ok());
            let local = local.map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            local.or_else(|| address.parse().ok())
        });
        match tcp {
            // There is no authentication: whoever reaches it may use it.
            Some(Some(address)) if address.ip().is_loopback() => Ok(Self::Tcp(address)),
            Some(Some(_)) => {
                Err(format!("{text:?}: only addresses of the loopback interface, such as tcp:127.0.0.1:0"))
            }
            _ => Err(format!("{text:?} is neither unix:PATH nor tcp:127.0.0.1:PORT")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

enum Socket {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

/// A bound socket. That of a path is removed when this is dropped.
pub struct Listener {
    socket: Socket,
    address: Address,
}

impl Listener {
    /// Binds it; within a tokio runtime. A socket that nobody listens on any more makes room.
    ///
    /// # Errors
    /// If somebody else has it, or it cannot be had.
    pub async fn bind(address: &Address) -> Result<Self, Fault> {
        let wrong = |error: io::Error| {
            let kind = if error.kind() == io::ErrorKind::AddrInUse { Kind::Temporary } else { Kind::Usage };
            Fault::new(kind, format!("--listen {address}: {error}"))
        };
        match address {
            Address::Unix(path) => {
                remove_stale(path).await.map_err(wrong)?;
                let socket = tokio::net::UnixListener::bind(path).map_err(wrong)?;
                // Connecting needs the right to write: nobody but the owner.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
                Ok(Self { socket: Socket::Unix(socket), address: address.clone() })
            }
            Address::Tcp(wanted) => {
                let socket = tokio::net::TcpListener::bind(wanted).await.map_err(wrong)?;
                let address = Address::Tcp(socket.local_addr().map_err(wrong)?);
                Ok(Self { socket: Socket::Tcp(socket), address })
            }
        }
    }

    /// Where it is: with the port that was chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Answers streams, at most `most` at once, until `stop`; then those that are open for `drain` at most.
    /// Each is reported with its number when it has ended. Gives how many were broken off.
    pub async fn serve(
        self,
        worker: Arc<Worker>,
        most: usize,
        stop: impl Future<Output = ()>,
        drain: Duration,
        report: impl Fn(usize, &Result<Summary, Fault>),
    ) -> usize {
        let places = Arc::new(Semaphore::new(most));
        let mut streams: JoinSet<Ended> = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        let mut number = 0;
        loop {
            // A client beyond the places waits in the system's queue of connections.
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.accept().await)
            };
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(ended) = streams.join_next() => told(ended, &report),
                (place, connection) = next => match connection {
                    Ok(connection) => {
                        number += 1;
                        let worker = Arc::clone(&worker);
                        streams.spawn(async move {
                            let result = answer(&worker, connection).await;
                            drop(place);
                            (number, result)
                        });
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
        drop(self);
        let drained = async {
            while let Some(ended) = streams.join_next().await {
                told(ended, &report);
            }
        };
        let _ = tokio::time::timeout(drain, drained).await;
        let left = streams.len();
        streams.abort_all();
        left
    }

    async fn accept(&self) -> io::Result<Connection> {
        match &self.socket {
            Socket::Unix(socket) => {
                let stream = socket.accept().await?.0.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(Connection::Unix(stream))
            }
            Socket::Tcp(socket) => {
                let stream = socket.accept().await?.0.into_std()?;
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }
        }
    }
}

/// What became of a stream: its number, and how it ended.
type Ended = (usize, Result<Summary, Fault>);

fn told(ended: Result<Ended, JoinError>, report: &impl Fn(usize, &Result<Summary, Fault>)) {
    match ended {
        Ok((number, result)) => report(number, &result),
        Err(error) => report(0, &Err(Fault::new(Kind::Model, format!("a stream was lost: {error}")))),
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes a socket whose process has gone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name"));
    }
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

enum Connection {
    Unix(std::os::unix::net::UnixStream),
    Tcp(std::net::TcpStream),
}

/// Answers a connection and closes it.
async fn answer(worker: &Worker, connection: Connection) -> Result<Summary, Fault> {
    let wrong = |error: io::Error| Fault::new(Kind::Temporary, format!("a connection: {error}"));
    match connection {
        Connection::Unix(stream) => {
            let (input, output) = (stream.try_clone().map_err(wrong)?, stream.try_clone().map_err(wrong)?);
            let _close = Close(|| drop(stream.shutdown(Shutdown::Both)));
            worker.answer(input, output).await
        }
        Connection::Tcp(stream) => {
            let (input, output) = (stream.try_clone().map_err(wrong)?, stream.try_clone().map_err(wrong)?);
            let _close = Close(|| drop(stream.shutdown(Shutdown::Both)));
            worker.answer(input, output).await
        }
    }
}

/// Closes a connection whatever becomes of its task: its threads may be waiting in it.
struct Close<F: FnMut()>(F);

impl<F: FnMut()> Drop for Close<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_interface_is_listened_on() {
        let parse = |text: &str| text.parse::<Address>();
        assert_eq!(parse("unix:/run/x.sock").unwrap(), Address::Unix("/run/x.sock".into()));
        for text in ["tcp:127.0.0.1:0", "tcp:[::1]:80"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("tcp:localhost:7").unwrap().to_string(), "tcp:127.0.0.1:7");
        for text in ["tcp:0.0.0.0:80", "tcp:10.0.0.1:80", "tcp:[::]:80"] {
            assert!(parse(text).unwrap_err().contains("loopback"), "{text}");
        }
        for text in ["", "unix:", "127.0.0.1:80", "tcp:80", "tcp:host:80"] {
            assert!(parse(text).unwrap_err().contains("neither"), "{text}");
        }
    }
}
