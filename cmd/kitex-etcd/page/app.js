// What etcd holds, drawn. Everything that comes from etcd is put into the page as text, never as markup.

const leasesEvery = 2000 // milliseconds; the console keeps answers as long
const mostLeases = 300   // that are asked for at once
const firstRows = 200    // of a service that is opened; the rest on demand
const longestFrame = 30  // milliseconds of drawing

const $ = (id) => document.getElementById(id)
const token = document.querySelector('meta[name=kitex-etcd-token]').content

let about = { cluster: '', prefix: '', writable: false, loading: true }
let connected = false
let lastHeard = null          // when the console was last heard
const items = new Map()       // by id
const services = new Map()    // by name, see serviceOf
const leases = new Map()      // by lease: {ttl, granted, at}
const fresh = new Set()       // ids that changed just now
let terms = []                // of the filter

// element makes an element with properties and children; strings become text.
function element(name, props = {}, ...children) {
  const e = document.createElement(name)
  for (const [key, value] of Object.entries(props)) {
    if (key in e && key !== 'role') e[key] = value
    else e.setAttribute(key, value)
  }
  e.append(...children.filter((c) => c !== null && c !== undefined && c !== ''))
  return e
}

// --- What there is ---

function serviceOf(name) {
  let s = services.get(name)
  if (!s) {
    s = { name, items: new Map(), open: false, rows: firstRows, element: null, visible: false }
    services.set(name, s)
  }
  return s
}

function put(item) {
  drop(item.id)
  items.set(item.id, item)
  serviceOf(item.service).items.set(item.id, item)
}

function drop(id) {
  const old = items.get(id)
  if (!old) return
  items.delete(id)
  services.get(old.service)?.items.delete(id)
}

const isThere = (item) => item.key !== undefined && !item.error
const isDrained = (item) => item.key === undefined && item.drain === true

function leaseOf(item) {
  const l = item.lease && leases.get(item.lease)
  return l && Date.now() - l.at < 3 * leasesEvery ? l : null
}

function isLate(item) {
  const l = leaseOf(item)
  return l !== null && l !== undefined && l.granted > 1 && 2 * l.ttl < l.granted
}

function stateOf(item) {
  if (item.error) return ['ignored', 'bad', item.error]
  if (isDrained(item)) return ['drained', '', item.reason || '']
  if (!isThere(item)) return ['gone', '', item.bad_mark || 'It has a mark, and is not registered.']
  if (item.drain) return ['draining', 'warn', 'It is marked, and still registered.']
  if (isLate(item)) return ['late', 'warn', 'Its server has not renewed its lease in time: it is busy, dead, or cut off from etcd.']
  if (!item.lease) return ['no lease', 'warn', 'It stays until somebody deletes it.']
  return ['registered', 'good', '']
}

// --- The filter ---

function matches(item) {
  return terms.every((term) => {
    if (term === 'is:drained') return isDrained(item) || item.drain === true
    if (term === 'is:late') return isLate(item)
    if (term === 'is:ignored') return Boolean(item.error)
    const eq = term.indexOf('=')
    const tags = Object.entries(item.tags || {})
    if (eq > 0) return tags.some(([k, v]) => k.toLowerCase() === term.slice(0, eq) && v.toLowerCase().startsWith(term.slice(eq + 1)))
    return item.service.toLowerCase().includes(term) || (item.address || '').toLowerCase().includes(term) ||
      tags.some(([k, v]) => k.toLowerCase().includes(term) || v.toLowerCase().includes(term))
  })
}

const shown = (s) => [...s.items.values()].filter(matches).sort((a, b) => byText(a.address || a.id, b.address || b.id))
const byText = (a, b) => (a < b ? -1 : a > b ? 1 : 0)

// --- Drawing ---

const dirty = new Set() // names of services to be drawn again
let everything = false
let planned = false

function plan(name) {
  if (name === undefined) everything = true
  else dirty.add(name)
  if (planned) return
  planned = true
  requestAnimationFrame(draw)
}

function draw() {
  planned = false
  if (everything) {
    dirty.clear()
    for (const name of [...services.keys()].sort()) dirty.add(name)
    everything = false
  }
  // Thousands of services take several frames: the first screen comes first.
  const ends = performance.now() + longestFrame
  for (const name of dirty) {
    dirty.delete(name)
    drawService(services.get(name))
    if (performance.now() > ends) break
  }
  if (dirty.size > 0) plan([...dirty][0])
  drawFigures()
  if (!about.loading && !document.body.dataset.shownAt) document.body.dataset.shownAt = performance.now()
}

function drawService(s) {
  if (!s) return
  const list = shown(s)
  if (list.length === 0) {
    if (s.element) {
      seen.unobserve(s.element)
      s.element.remove()
    }
    s.element = null
    if (s.items.size === 0) services.delete(s.name)
    return
  }
  if (!s.element) makeService(s)
  const there = list.filter(isThere).length
  s.parts.count.textContent = there === 1 ? '1 instance' : `${there} instances`
  s.parts.chips.replaceChildren(...chipsOf(list))
  s.parts.button.setAttribute('aria-expanded', String(s.open))
  s.parts.body.hidden = !s.open
  if (s.open) drawRows(s, list)
}

let made = 0

function makeService(s) {
  const id = `service-${made++}`
  const count = element('span', { className: 'count' })
  const chips = element('span', { className: 'chips' })
  const button = element('button', { type: 'button', 'aria-controls': id },
    element('span', { className: 'chevron', 'aria-hidden': 'true' }),
    element('span', { className: 'name', title: s.name || '(no service)' }, s.name || '(no service)'), count, chips)
  const body = element('div', { className: 'instances', id, hidden: true })
  button.addEventListener('click', () => {
    s.open = !s.open
    plan(s.name)
    askLeases()
  })
  s.parts = { button, count, chips, body }
  s.element = element('li', { className: 'service' }, element('h3', {}, button), body)
  s.element.service = s
  // In its place by name.
  const all = $('services').children
  let low = 0
  let high = all.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (all[middle].service.name < s.name) low = middle + 1
    else high = middle
  }
  $('services').insertBefore(s.element, all[low] || null)
  seen.observe(s.element)
}

// Leases are asked for where they can be seen.
const seen = new IntersectionObserver((entries) => {
  for (const e of entries) e.target.service.visible = e.isIntersecting
})

function chipsOf(list) {
  const chips = []
  const pill = (n, what, kind) => { if (n > 0) chips.push(element('span', { className: `pill ${kind}` }, `${n} ${what}`)) }
  pill(list.filter(isLate).length, 'late', 'warn')
  pill(list.filter((i) => isDrained(i) || i.drain).length, 'drained', '')
  pill(list.filter((i) => i.error).length, 'ignored', 'bad')
  for (const tag of ['zone', 'lane']) {
    const counts = new Map()
    for (const i of list) if (isThere(i) && i.tags?.[tag]) counts.set(i.tags[tag], (counts.get(i.tags[tag]) || 0) + 1)
    for (const value of [...counts.keys()].sort().slice(0, 4)) chips.push(element('span', { className: 'chip' }, `${tag} ${value}: ${counts.get(value)}`))
    if (counts.size > 4) chips.push(element('span', { className: 'chip' }, `${counts.size - 4} more`))
  }
  return chips
}

function drawRows(s, list) {
  const writing = about.writable
  if (!s.parts.table) {
    const heads = ['Address', 'Weight', 'Lease', 'Age', 'State', 'Tags']
    const head = element('tr', {}, ...heads.map((h) => element('th', { scope: 'col' }, h)))
    if (writing) head.append(element('th', {}, element('span', { className: 'unseen' }, 'Actions')))
    s.parts.rows = element('tbody')
    s.parts.table = element('table', { 'aria-label': `Instances of ${s.name}` }, element('thead', {}, head), s.parts.rows)
    s.parts.more = element('button', { type: 'button', className: 'quiet more' })
    s.parts.more.addEventListener('click', () => { s.rows += 1000; plan(s.name) })
    s.parts.body.append(s.parts.table, s.parts.more)
  }
  // A button that has the focus keeps it.
  const focus = document.activeElement?.dataset?.focus
  s.parts.rows.replaceChildren(...list.slice(0, s.rows).map((item) => row(item, writing)))
  if (focus && document.activeElement === document.body) {
    [...s.parts.rows.querySelectorAll('button')].find((b) => b.dataset.focus === focus)?.focus()
  }
  s.parts.more.hidden = list.length <= s.rows
  s.parts.more.textContent = `${list.length - s.rows} more: show the next 1000`
}

function cell(label, className, ...children) {
  return element('td', { className, 'data-label': label }, ...children)
}

function row(item, writing) {
  const [state, kind, why] = stateOf(item)
  const weight = cell('Weight', 'number', isThere(item) ? String(item.weight) : '–')
  if (item.mark) weight.append(element('small', {}, `by a mark of ${item.mark}`))
  const stateCell = cell('State', '', element('div', {}, element('span', { className: `pill ${kind}`, title: why }, state),
    (item.drain && item.reason) || item.error || item.bad_mark ? element('small', {}, item.error || item.bad_mark || item.reason) : null))
  const tags = Object.entries(item.tags || {}).sort(([a], [b]) => byText(a, b))
  const tr = element('tr', {},
    cell('Address', 'address', item.address || item.key || item.id), weight,
    cell('Lease', 'number', lease(item)),
    cell('Age', 'number', element('span', { title: item.since ? `its server was granted its lease at ${item.since}` : 'not known' }, age(item.since))),
    stateCell,
    cell('Tags', '', element('div', { className: 'tags' }, ...tags.slice(0, 100).map(([k, v]) => element('span', { className: 'chip', title: `${k}=${v}` }, `${k}=${v}`)))))
  if (writing) tr.append(actions(item))
  if (fresh.has(item.id)) tr.className = 'fresh'
  return tr
}

function lease(item) {
  if (!isThere(item)) return '–'
  if (!item.lease) return 'none'
  const l = leaseOf(item)
  if (!l) return element('span', { className: 'lease' }, element('span', { className: 'bar' }), '…')
  const fill = element('span')
  fill.style.width = `${Math.min(100, (100 * l.ttl) / l.granted)}%`
  return element('span', { className: isLate(item) ? 'lease late' : 'lease' },
    element('span', { className: 'bar', role: 'meter', 'aria-label': 'left of the lease', 'aria-valuemin': '0', 'aria-valuemax': String(l.granted), 'aria-valuenow': String(l.ttl) }, fill),
    `${l.ttl} s of ${l.granted} s`)
}

function age(since) {
  if (!since) return '–'
  const s = Math.max(0, (Date.now() - Date.parse(since)) / 1000)
  if (s < 60) return `${Math.floor(s)} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 172800) return `${Math.floor(s / 3600)} h`
  return `${Math.floor(s / 86400)} d`
}

function drawFigures() {
  let there = 0
  let drained = 0
  let late = 0
  let ignored = 0
  for (const i of items.values()) {
    if (isThere(i)) there++
    if (isDrained(i) || i.drain) drained++
    if (i.error) ignored++
    if (isLate(i)) late++
  }
  const set = (id, n, kind) => {
    $(id).textContent = about.loading ? '–' : n.toLocaleString('en')
    $(id).parentElement.className = n > 0 ? kind : ''
  }
  set('n-services', services.size, '')
  set('n-instances', there, '')
  set('n-drained', drained, '')
  set('n-late', late, 'warn')
  set('n-ignored', ignored, 'bad')
  const found = $('services').childElementCount
  $('found').textContent = terms.length ? `${found} of ${services.size} services` : ''
  const empty = $('empty')
  empty.hidden = found > 0
  if (about.loading) empty.textContent = about.error ? 'etcd has not answered yet.' : 'Reading etcd …'
  else if (terms.length) empty.textContent = 'Nothing matches the filter.'
  else empty.textContent = `Nothing is registered below ${about.prefix}/. A server that starts appears here by itself.`
}

function drawLink() {
  $('cluster').textContent = about.cluster
  $('prefix').textContent = about.prefix
  const link = $('link')
  const time = (t) => new Date(t).toLocaleTimeString()
  let banner = ''
  if (!connected) {
    [link.textContent, link.className] = [lastHeard ? 'console away' : 'connecting', lastHeard ? 'link bad' : 'link']
    if (lastHeard) banner = `The console does not answer since ${time(lastHeard)}. What you see is of then; the page goes on by itself when it is back.`
  } else if (about.error) {
    [link.textContent, link.className] = ['etcd away', 'link bad']
    banner = `${about.error}. ${about.loading ? 'The page fills when etcd answers.' : `What you see is of ${time(about.since)}; the page goes on by itself when etcd is back.`}`
  } else {
    [link.textContent, link.className] = [about.loading ? 'reading' : 'live', about.loading ? 'link' : 'link good']
  }
  $('banner').textContent = banner
  $('banner').hidden = banner === ''
}

function addChange(c) {
  const kinds = { added: 'good', removed: 'bad', changed: 'warn' }
  const list = $('changes')
  const time = new Date(c.time)
  list.prepend(element('li', {},
    element('span', { className: 'line' },
      element('time', { dateTime: c.time }, time.toLocaleTimeString()),
      element('span', { className: `pill ${kinds[c.event] || ''}` }, c.event)),
    element('b', {}, c.service), ` ${c.address}`,
    c.what ? element('small', {}, c.what) : null))
  while (list.childElementCount > 200) list.lastElementChild.remove()
  $('quiet').hidden = true
}

// --- What is heard ---

let source = null // the stream of events
let again         // the timer that opens it anew

// The stream of events is opened first, then the state is fetched: of the events that come meanwhile those that are newer are applied.
function listen() {
  clearTimeout(again)
  source?.close()
  const stream = source = new EventSource('api/events')
  let waiting = []     // events before the state; null once it is there
  const apply = { about: (a) => { if (hearAbout(a)) load() }, item: hearItem }
  for (const name of Object.keys(apply)) {
    stream.addEventListener(name, (e) => {
      lastHeard = Date.now()
      const m = JSON.parse(e.data)
      if (waiting) waiting.push([name, m])
      else apply[name](m)
    })
  }
  const load = async () => {
    const mine = waiting = []
    try {
      const answer = await fetch('api/state')
      if (!answer.ok) throw new Error((await answer.json()).error)
      const state = await answer.json()
      if (waiting !== mine) return // the stream was opened again meanwhile
      lastHeard = Date.now()
      connected = true
      hearState(state)
      for (const [name, m] of waiting) if (m.seq > state.seq) apply[name](m)
      waiting = null
    } catch (e) {
      console.error(e)
      stream.close()
      away()
    }
  }
  const away = () => {
    if (stream !== source) return
    connected = false
    drawLink()
    // A browser opens a stream again by itself, but not after an answer that is an error.
    if (stream.readyState === EventSource.CLOSED) again = setTimeout(listen, 2000)
  }
  stream.onopen = load
  stream.onerror = away
}

// A browser has six connections to a host, and each page holds one: a page that nobody looks at lets go of it.
let unseen

document.addEventListener('visibilitychange', () => {
  clearTimeout(unseen)
  if (document.hidden) {
    unseen = setTimeout(() => {
      clearTimeout(again)
      source.close()
    }, 10000)
  } else if (source.readyState === EventSource.CLOSED) listen()
})

function hearState(s) {
  about = s
  const open = new Set([...services.values()].filter((x) => x.open).map((x) => x.name))
  $('services').replaceChildren()
  seen.disconnect()
  items.clear()
  services.clear()
  dirty.clear()
  for (const item of s.items) put(item)
  for (const name of open) if (services.has(name)) services.get(name).open = true
  $('changes').replaceChildren()
  $('quiet').hidden = false
  for (const c of s.changes || []) addChange(c)
  if (services.size === 1) for (const x of services.values()) x.open = true
  plan()
  drawLink()
  setTimeout(askLeases, 100)
}

// hearAbout says whether there is a state now that there was not before.
function hearAbout(a) {
  const filled = about.loading && !a.loading
  Object.assign(about, { error: undefined, since: undefined }, a)
  plan()
  drawLink()
  return filled
}

function hearItem(m) {
  const before = items.get(m.id)
  if (m.item) {
    put(m.item)
    fresh.add(m.id)
    setTimeout(() => fresh.delete(m.id), 1600)
  } else drop(m.id)
  if (before) plan(before.service)
  if (m.item) plan(m.item.service)
  if (m.change) addChange(m.change)
}

let asking = false

async function askLeases() {
  if (asking || document.hidden || !connected || about.error) return
  const wanted = new Set()
  for (const s of services.values()) {
    if (!s.visible || wanted.size >= mostLeases) continue
    const list = s.open ? shown(s).slice(0, s.rows) : [...s.items.values()].slice(0, 20)
    for (const i of list) if (i.lease && isThere(i) && wanted.size < mostLeases) wanted.add(i.lease)
  }
  if (wanted.size === 0) return
  asking = true
  try {
    const answer = await fetch(`api/leases?${[...wanted].map((id) => `id=${id}`).join('&')}`)
    if (!answer.ok) return
    const at = Date.now()
    for (const [id, l] of Object.entries(await answer.json())) leases.set(id, { ...l, at })
    for (const [id, l] of leases) if (at - l.at > 10 * leasesEvery) leases.delete(id)
    for (const s of services.values()) if (s.visible) plan(s.name)
  } catch {
    // The stream of events tells when the console is away.
  } finally {
    asking = false
  }
}

setInterval(askLeases, leasesEvery)
document.addEventListener('visibilitychange', askLeases)

// --- Changing something ---

function actions(item) {
  const td = cell('', 'todo')
  const add = (text, f) => {
    const b = element('button', { type: 'button', className: 'quiet', 'aria-label': `${text} ${item.service} ${item.address}` }, text)
    b.dataset.focus = `${text} ${item.id}`
    b.addEventListener('click', f)
    td.append(b)
  }
  if (item.error || !item.address) return td
  if (item.drain) add('Undrain', () => ask(item, 'undrain'))
  else if (isThere(item)) add('Drain', () => ask(item, 'drain'))
  else add('Remove mark', () => ask(item, item.mark ? 'unweigh' : 'undrain'))
  if (isThere(item)) add('Weight', () => ask(item, 'weight'))
  if (isThere(item) && item.mark) add('Own weight', () => ask(item, 'unweigh'))
  return td
}

const questions = {
  drain: ['Drain', 'No client calls it any more, those of other libraries included. It runs on, finishes the calls that it has, and stays drained when it is restarted.'],
  undrain: ['Undrain', 'It registers again, and clients call it.'],
  weight: ['Set the weight of', 'Its share of the calls is its weight among those of all instances, for all clients and after a restart.'],
  unweigh: ['Take back the weight of', 'It has the weight again that it registered with.'],
}

let question = null

function ask(item, what) {
  question = { item, what }
  const [verb, text] = questions[what]
  const marks = what === 'drain' || what === 'weight'
  $('ask-title').textContent = `${verb} ${item.service} ${item.address}?`
  $('ask-text').textContent = text
  $('ask-weight-row').hidden = what !== 'weight'
  $('ask-weight').required = what === 'weight'
  $('ask-weight').value = what === 'weight' ? item.weight : ''
  $('ask-for-row').hidden = $('ask-reason-row').hidden = !marks
  $('ask-for').value = ''
  $('ask-reason').value = ''
  $('ask-force').checked = false
  $('ask-force-row').hidden = true
  $('ask-error').hidden = true
  $('ask-yes').textContent = { drain: 'Drain', undrain: 'Undrain', weight: 'Set weight', unweigh: 'Take back' }[what]
  $('ask').showModal()
}

$('ask-no').addEventListener('click', () => $('ask').close())

$('ask').querySelector('form').addEventListener('submit', async (e) => {
  e.preventDefault()
  const { item, what } = question
  const body = { service: item.service, address: item.address }
  if (what === 'drain' || what === 'weight') Object.assign(body, { for: $('ask-for').value, reason: $('ask-reason').value })
  if (what === 'drain') body.force = $('ask-force').checked
  if (what === 'weight') body.weight = Number($('ask-weight').value)
  if (what === 'unweigh') body.weight = 0
  $('ask-yes').disabled = true
  try {
    const answer = await fetch(`api/${what === 'unweigh' ? 'weight' : what}`, {
      method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Kitex-Etcd-Token': token }, body: JSON.stringify(body),
    })
    const said = await answer.json()
    if (!answer.ok) {
      $('ask-error').textContent = said.error
      $('ask-error').hidden = false
      $('ask-force-row').hidden = !said.last
      return
    }
    $('ask').close()
    toast(said.told || { drain: 'Drained', undrain: 'In service', weight: 'The weight is set', unweigh: 'As registered' }[what] + `: ${item.service} ${item.address}`)
  } catch {
    $('ask-error').textContent = 'The console does not answer. Whether the change was made, the page shows when it is back.'
    $('ask-error').hidden = false
  } finally {
    $('ask-yes').disabled = false
  }
})

let toastEnds

function toast(text) {
  $('toast').textContent = text
  $('toast').hidden = false
  clearTimeout(toastEnds)
  toastEnds = setTimeout(() => { $('toast').hidden = true }, 5000)
}

// --- The page itself ---

$('filter').addEventListener('input', () => {
  terms = $('filter').value.toLowerCase().split(/\s+/).filter(Boolean)
  plan()
})
$('search').addEventListener('submit', (e) => e.preventDefault())
document.addEventListener('keydown', (e) => {
  if (e.key === '/' && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName) && !$('ask').open) {
    e.preventDefault()
    $('filter').focus()
  }
})

const themes = ['system', 'light', 'dark']

function setTheme(name) {
  if (name === 'system') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = name
  $('theme').textContent = name
}

function storedTheme() {
  try {
    return localStorage.getItem('kitex-etcd-theme') || 'system'
  } catch {
    return 'system' // the browser stores nothing
  }
}

$('theme').addEventListener('click', () => {
  const next = themes[(themes.indexOf($('theme').textContent) + 1) % themes.length]
  setTheme(next)
  try {
    localStorage.setItem('kitex-etcd-theme', next)
  } catch {
    // For this page only, then.
  }
})
setTheme(storedTheme())
drawLink()
listen()
