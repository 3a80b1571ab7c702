//! A forwarder before the broker's AMQP port that counts what the operator declares, deletes and publishes, and kills at a
//! chosen one.
//!
//! AMQP 0-9-1 §4.2.3: a frame is a type, a channel, a size, so many bytes, and an end mark; a method's begin with its class
//! and its number.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::JoinHandle,
};

use crate::traffic::{Due, Moment, Traffic};

/// Type of a frame that holds a method.
const METHOD: u8 = 1;
/// Declaration of an exchange; declaration, binding and deletion of a queue; a message. (An acknowledgement says what was
/// heard.)
const WRITES: [(u16, u16); 5] = [(40, 10), (50, 10), (50, 20), (50, 40), (60, 40)];
/// A message for the operator: no answer to anything.
const DELIVERY: (u16, u16) = (60, 60);

/// The forwarder, for as long as the value lives.
pub struct Wire {
    /// What goes through.
    pub traffic: Arc<Traffic>,
    port: u16,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// Forwards to a broker on loopback.
    pub fn to(runtime: &Runtime, broker: u16) -> Self {
        let traffic = Arc::<Traffic>::default();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let counted = traffic.clone();
        let accepting = runtime.spawn(async move {
            while let Ok((operator, _)) = listener.accept().await {
                tokio::spawn(connection(operator, broker, counted.clone()));
            }
        });
        Self { traffic, port, accepting }
    }

    /// Its own port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Whichever side ends first ends both.
async fn connection(operator: TcpStream, broker: u16, traffic: Arc<Traffic>) -> io::Result<()> {
    let broker = TcpStream::connect(("127.0.0.1", broker)).await?;
    // Trap: small frames would wait for the acknowledgement of the ones before.
    operator.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let ((mut from_operator, mut to_operator), (mut from_broker, mut to_broker)) =
        (operator.into_split(), broker.into_split());
    // Who dies when the answer comes.
    let doomed = Mutex::new(None);
    let doomed = || doomed.lock().unwrap_or_else(PoisonError::into_inner);
    let asks = async {
        let mut protocol = [0; 8];
        from_operator.read_exact(&mut protocol).await?;
        to_broker.write_all(&protocol).await?;
        loop {
            let frame = frame(&mut from_operator).await?;
            if method(&frame).is_some_and(|method| WRITES.contains(&method)) {
                match traffic.write() {
                    Due::Call(Moment::Before, kill) => {
                        kill();
                        return io::Result::Ok(());
                    }
                    Due::Call(moment, kill) => *doomed() = Some((moment, kill)),
                    Due::Nothing | Due::Refuse(_) => {}
                }
            }
            to_broker.write_all(&frame).await?;
        }
    };
    let answers = async {
        loop {
            let frame = frame(&mut from_broker).await?;
            let is_answer = method(&frame).is_some_and(|method| method != DELIVERY);
            let due = if is_answer { doomed().take() } else { None };
            match due {
                None => to_operator.write_all(&frame).await?,
                Some((moment, kill)) => {
                    if moment == Moment::Answered {
                        to_operator.write_all(&frame).await?;
                        tokio::time::sleep(Moment::ON_ITS_WAY).await;
                    }
                    kill();
                    return io::Result::Ok(());
                }
            }
        }
    };
    tokio::select! { ended = asks => ended, ended = answers => ended }
}

/// The next frame, whole.
async fn frame(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 7];
    from.read_exact(&mut frame).await?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
    frame.resize(7 + size as usize + 1, 0);
    from.read_exact(&mut frame[7..]).await?;
    Ok(frame)
}

/// Class and number of the method it holds.
fn method(frame: &[u8]) -> Option<(u16, u16)> {
    let number = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    if frame[0] == METHOD { Some((number(7)?, number(9)?)) } else { None }
}
