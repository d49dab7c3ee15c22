"""What `envio once` says at its end: all of it on a terminal, else only what is wrong. Called by cli.py."""

from agent import compat, errors, text


def sum_up(agent, log, terminal):
    """Say what a pass did, and return the exit code.

    agent: engine.Agent as it ended; log: the logger; terminal: True: say all, also what is well.
    """
    for line in agent.stats.summary(compat.monotonic()):
        (log.warning if terminal else log.info)('%s', line)
    for name, stats in sorted(agent.stats.receivers.items()):
        if stats.rejected:
            log.warning('%s: %s rejected, last: %s: see error/*.reason in the spool', name,
                        text.count(stats.rejected, 'file'), stats.last_rejection)
        lane = agent.lanes.lanes.get(name)
        if lane is not None and lane.held:
            log.warning('%s: HOLD: %s: nothing of it moves: mend the receiver or its section', name, lane.held)
        elif stats.failed or stats.held:
            log.warning('%s: %s failed, last: %s: the files stay for the next pass', name,
                        text.count(stats.failed + stats.held, 'attempt'), stats.last_failure)
    waiting = agent.waiting()
    for name, lane in sorted(agent.lanes.lanes.items()):
        if name not in agent.stats.receivers and not lane.held and lane.waiting() and lane.breaker.openings:
            log.warning('%s: OPEN since an earlier pass: %s wait until it is probed', name,
                        text.count(lane.waiting(), 'file'))
    if agent.collector.unrouted:
        log.warning('%s without a receiver: see `envio route NAME`', text.count(agent.collector.unrouted, 'file'))
    if agent.lanes.unmoved():
        log.error('%s answered but not moved: the next pass would send again: make room or mend the permissions',
                  text.count(agent.lanes.unmoved(), 'file'))
    if agent.interrupted:
        log.warning('stopped before everything was tried: the rest waits for the next pass')
    elif waiting:
        log.warning('%s waiting in the spool', text.count(waiting, 'file'))
    if agent.stats.total('rejected'):
        return errors.EX_REJECTED
    return errors.EX_WAITING if waiting or agent.interrupted else errors.EX_OK
