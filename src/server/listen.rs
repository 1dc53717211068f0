//! Where connections come in: TCP or a Unix socket, bound before anything runs.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Listen;

/// A bound port or socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    /// The file goes before the socket closes.
    Unix(#[expect(dead_code, reason = "it works by being dropped")] SocketFile, UnixListener),
}

/// Where a listener can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The real port, also where port 0 was asked for.
    Tcp(SocketAddr),
    /// The socket's path.
    Unix(PathBuf),
}

impl Address {
    /// The port, if it is one.
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

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {error}")]
pub struct BindError {
    key: &'static str,
    address: String,
    error: io::Error,
}

impl Listener {
    /// Binds what the configuration's `key` says; `mode` is a Unix socket's file mode.
    ///
    /// # Errors
    /// [`BindError`] when the address does not resolve or is taken, or something that is no stale socket
    /// stands at the path.
    pub async fn bind(key: &'static str, listen: &Listen, mode: u32) -> Result<Self, BindError> {
        let named = |error| BindError { key, address: listen.to_string(), error };
        match listen {
            Listen::Tcp(address) => {
                let socket = TcpListener::bind(address).await.map_err(named)?;
                let address = Address::Tcp(socket.local_addr().map_err(named)?);
                Ok(Self { socket: Socket::Tcp(socket), address })
            }
            Listen::Unix(path) => {
                make_room(path).await.map_err(named)?;
                let (socket, file) = bind_unix(path, mode).map_err(named)?;
                Ok(Self { socket: Socket::Unix(file, socket), address: Address::Unix(path.clone()) })
            }
        }
    }

    /// Where it can be reached.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The next connection, and who it is from.
    ///
    /// # Errors
    /// As the system reports it: too many open files, or a peer that went away already.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                // Without it every answer waits for the peer's delayed acknowledgement.
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

/// Who is at the other end, for the log.
#[derive(Debug, Clone, Copy)]
pub struct Peer(Option<SocketAddr>);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("unix"),
        }
    }
}

/// A socket's file, removed with its listener if it is still the same.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|data| (data.dev(), data.ino()) == self.inode);
        if ours {
            // What is left behind is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Refuses a path where something stands that is no stale socket.
async fn make_room(path: &Path) -> io::Result<()> {
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

/// Binds beside the path and renames over it, so that nobody ever meets the socket with another mode, nor a
/// moment without one.
fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{:04x}", fastrand::u16(..)));
    let fresh = PathBuf::from(fresh);
    let listener = UnixListener::bind(&fresh)?;
    let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).and_then(|()| {
        let data = fs::symlink_metadata(&fresh)?;
        fs::rename(&fresh, path)?;
        Ok(SocketFile { path: path.to_owned(), inode: (data.dev(), data.ino()) })
    });
    if placed.is_err() {
        let _ = fs::remove_file(&fresh);
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

/// A connection that no runtime drives yet.
#[derive(Debug)]
pub(crate) enum Idle {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Stream {
    /// Takes it off the runtime that accepted it.
    pub(crate) fn idle(self) -> io::Result<Idle> {
        Ok(match self {
            Self::Tcp(stream) => Idle::Tcp(stream.into_std()?),
            Self::Unix(stream) => Idle::Unix(stream.into_std()?),
        })
    }
}

impl Idle {
    /// Puts it on the runtime that runs this.
    pub(crate) fn here(self) -> io::Result<Stream> {
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

/// No vectored writes, on purpose: with them h2 sends each answer of more than 256 bytes in a system call of its own;
/// without, it copies answers of up to 1 KiB together and sends many at once.
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
        // Somebody else's by now: it stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        drop(second);
        let said = unix(&path).await.unwrap_err();
        assert!(said.ends_with("a file that is no socket stands there"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
        assert!(unix(&folder.path().join("no/such/folder.sock")).await.is_err());
    }
}
