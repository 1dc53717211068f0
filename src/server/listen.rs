//! Listeners on TCP or a Unix socket, and the streams of the connections they accept.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{Domain, Socket as Socket2, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Listen;

/// A bound TCP port or Unix socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// Fields drop in order: the file is removed before the socket closes.
    Unix(#[expect(dead_code, reason = "its Drop removes the file")] SocketFile, UnixListener),
}

/// The address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// With the port that the system chose, if the configuration says port 0.
    Tcp(SocketAddr),
    /// The socket's path.
    Unix(PathBuf),
}

impl Address {
    /// The TCP address; `None` for a Unix socket.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {error}")]
pub struct BindError {
    key: &'static str,
    address: String,
    error: io::Error,
}

impl Listener {
    /// Binds the address of the configuration's `key`; `mode` is the file mode of a Unix socket.
    ///
    /// # Errors
    /// [`BindError`] when the address does not resolve or is taken, or when the path of a Unix socket holds anything but
    /// a stale socket.
    pub async fn bind(key: &'static str, listen: &Listen, mode: u32) -> Result<Self, BindError> {
        let named = |error| BindError { key, address: listen.to_string(), error };
        match listen {
            Listen::Tcp(address) => {
                let socket = match any_address(address) {
                    Some(port) => bind_any(port),
                    None => TcpListener::bind(address).await,
                };
                let socket = socket.map_err(named)?;
                let address = Address::Tcp(socket.local_addr().map_err(named)?);
                Ok(Self { socket: Socket::Tcp(socket), address })
            }
            Listen::Unix(path) => {
                check_socket_path(path).await.map_err(named)?;
                let (socket, file) = bind_unix(path, mode).map_err(named)?;
                Ok(Self { socket: Socket::Unix(file, socket), address: Address::Unix(path.clone()) })
            }
        }
    }

    /// The address that clients connect to.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection.
    ///
    /// # Errors
    /// Of accept(2): too many open files, or a client that closed the connection already.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                // With Nagle's algorithm an answer waits for the client's delayed acknowledgement.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "TCP_NODELAY cannot be set");
                }
                Ok((Stream::Tcp(stream), Peer(Some(peer))))
            }
            Socket::Unix(_, socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((Stream::Unix(stream), Peer(None)))
            }
        }
    }
}

/// The other end of a connection, for the log; `None` over a Unix socket.
#[derive(Debug, Clone, Copy)]
pub struct Peer(Option<SocketAddr>);

impl Peer {
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.0.map(|address| address.ip())
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            // An IPv4 client of a port that has both comes as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2).
            Some(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// The port of `[::]:PORT`, which stands for every address of the host, IPv4 too.
fn any_address(address: &str) -> Option<u16> {
    match address.parse() {
        Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => Some(address.port()),
        _ => None,
    }
}

/// Connections that may wait to be accepted, as tokio has it.
const BACKLOG: i32 = 1024;

/// Binds a port of all addresses: with IPv6 and IPv4 on one socket, whatever the host's `net.ipv6.bindv6only` says, and with IPv4
/// alone on a kernel without IPv6.
fn bind_any(port: u16) -> io::Result<TcpListener> {
    let socket = match Socket2::new(Domain::IPV6, Type::STREAM, None) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            prepared(&socket, (Ipv6Addr::UNSPECIFIED, port).into())?;
            socket
        }
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
            let socket = Socket2::new(Domain::IPV4, Type::STREAM, None)?;
            prepared(&socket, (Ipv4Addr::UNSPECIFIED, port).into())?;
            socket
        }
        Err(error) => return Err(error),
    };
    TcpListener::from_std(socket.into())
}

/// Makes a listener of a socket, as tokio does.
fn prepared(socket: &Socket2, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // A restart must not wait until old connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)
}

/// The file of a Unix socket. Dropping it removes the file, if the file is still this socket's.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|data| (data.dev(), data.ino()) == self.inode);
        if ours {
            // A file that stays is a stale socket, which the next start replaces.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// An error unless the path is free or holds a stale socket: one that refuses connections, as its process was killed.
async fn check_socket_path(path: &Path) -> io::Result<()> {
    let taken = |kind, text| Err(io::Error::new(kind, text));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(data) if !data.file_type().is_socket() => {
            taken(io::ErrorKind::AlreadyExists, "a file that is no socket stands there")
        }
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => taken(io::ErrorKind::AddrInUse, "another process listens there"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error),
        },
    }
}

/// Binds under a temporary name, sets the mode and renames over the path. A client can therefore never connect while the
/// socket has the umask's mode, and the path always names a socket.
fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{:04x}", fastrand::u16(..)));
    let temporary = PathBuf::from(name);
    let listener = UnixListener::bind(&temporary)?;
    let placed = fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)).and_then(|()| {
        let data = fs::symlink_metadata(&temporary)?;
        fs::rename(&temporary, path)?;
        Ok(SocketFile { path: path.to_owned(), inode: (data.dev(), data.ino()) })
    });
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    Ok((listener, placed?))
}

/// An accepted connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A connection that is registered with no runtime's I/O driver.
#[derive(Debug)]
pub(crate) enum DetachedStream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Stream {
    /// Deregisters the stream from the runtime that accepted it.
    pub(crate) fn detach(self) -> io::Result<DetachedStream> {
        Ok(match self {
            Self::Tcp(stream) => DetachedStream::Tcp(stream.into_std()?),
            Self::Unix(stream) => DetachedStream::Unix(stream.into_std()?),
        })
    }
}

impl DetachedStream {
    /// Registers the stream with the current runtime.
    pub(crate) fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

/// Vectored writes are not forwarded, on purpose: with them h2 sends each answer of more than 256 bytes in a system call of
/// its own; without them h2 copies answers of up to 1 KiB together and sends many at once (docs/decisions/0005).
impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn unix(path: &Path) -> Result<Listener, String> {
        let listen = Listen::Unix(path.to_owned());
        Listener::bind("server.listen", &listen, 0o620).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn one_port_answers_over_both_versions_of_ip() {
        let listen = Listen::Tcp("[::]:0".to_owned());
        let listener = Listener::bind("admin.listen", &listen, 0).await.unwrap();
        let port = listener.address().tcp().unwrap().port();
        for (host, shown) in [("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")] {
            let client = TcpStream::connect((host, port)).await.unwrap();
            let (_, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.to_string(), format!("{shown}{}", client.local_addr().unwrap().port()));
        }
        let taken = Listen::Tcp(format!("[::]:{port}"));
        assert!(Listener::bind("admin.listen", &taken, 0).await.is_err());
        for (address, port) in [
            ("[::]:1", Some(1)),
            ("[0::0]:1", Some(1)),
            ("[::1]:1", None),
            ("0.0.0.0:1", None),
            ("a:1", None),
        ] {
            assert_eq!(any_address(address), port, "{address}");
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authz.sock");
        let first = unix(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let said = unix(&path).await.unwrap_err();
        assert!(said.starts_with("server.listen: cannot listen on unix:/"), "{said}");
        assert!(said.ends_with("another process listens there"), "{said}");
        drop(first);
        assert!(!path.exists(), "removed with its listener");

        // A process that was killed leaves its socket behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = unix(&path).await.unwrap();
        // The path holds another file by now: that file stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        drop(second);
        let said = unix(&path).await.unwrap_err();
        assert!(said.ends_with("a file that is no socket stands there"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        assert!(unix(&folder.path().join("no/such/folder.sock")).await.is_err());
    }
}
