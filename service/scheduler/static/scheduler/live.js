// Keeps a page as it is on the server: what changes on it is asked for every five seconds, without its frame. Nothing
// is changed under somebody who types, or has selected something; a tab that nobody sees asks for nothing.
// And its icon says whether the service is well, in a tab in the background too.
'use strict';
{
    const EVERY = 5000, HEALTH_EVERY = 30000;       // milliseconds
    const LIVE = '#result_list > tbody, #changelist .paginator, [data-live]';

    function whole(page) {
        // The page of a call: what it may show depends on where the call is by now. Not a form of new ones, and not one that
        // was sent and came back: to ask for it anew would lose what was written, or send it once more.
        return location.pathname.endsWith('/change/') && !page.querySelector('.errornote')
            && page.querySelector('body.model-scheduledcall.change-form #content-main');
    }

    function busy() {
        const active = document.activeElement;
        return !document.getSelection().isCollapsed
            || active.matches('input:not([type=checkbox], [type=radio], [type=submit]), textarea')
            || active.matches(':focus-visible') && [...document.querySelectorAll(LIVE)].some(region => region.contains(active))
            || [...document.querySelectorAll('#content input, #content select, #content textarea')].some(changed);
    }

    function changed(field) {
        if (field.type === 'checkbox' || field.type === 'radio')
            return field.checked !== field.defaultChecked;
        if (field.options)
            return [...field.options].some(option => option.selected !== option.defaultSelected)
                && (field.multiple || field.selectedIndex > 0 || [...field.options].some(option => option.defaultSelected));
        return field.type !== 'hidden' && field.value !== field.defaultValue;
    }

    function replace(region, other) {
        if (region.innerHTML === other.innerHTML)
            return;
        const scrolled = [...region.querySelectorAll('.paper')].map(part => part.scrollLeft);
        const open = [...region.querySelectorAll('details')].map(part => part.open);
        region.replaceChildren(...other.childNodes);
        region.querySelectorAll('.paper').forEach((part, i) => { part.scrollLeft = scrolled[i] ?? 0; });
        const parts = region.querySelectorAll('details');
        if (parts.length === open.length)           // else there is another attempt, which the server opens
            parts.forEach((part, i) => { part.open = open[i]; });
    }

    function take(page) {
        const regions = [...document.querySelectorAll(LIVE)], others = [...page.querySelectorAll(LIVE)];
        if (regions.length !== others.length)       // the first call of a list, or the last
            return location.reload();
        regions.forEach((region, i) => replace(region, others[i]));
        const counter = document.querySelector('.action-counter'), other = page.querySelector('.action-counter');
        if (counter && other && counter.dataset.actionsIcnt !== other.dataset.actionsIcnt) {
            counter.dataset.actionsIcnt = other.dataset.actionsIcnt;
            counter.textContent = other.textContent;
        }
    }

    let before = null;

    function compare(content) {
        const bare = content.cloneNode(true);
        bare.querySelectorAll('input[type=hidden]').forEach(field => field.remove());       // keys, new each time
        const changed = before !== null && before !== bare.innerHTML;
        before = bare.innerHTML;
        if (changed && document.querySelector('#content-main :is(input:not([type=hidden]), select, textarea)'))
            location.reload();                      // fields that a script has furnished
        else if (changed)
            replace(whole(document), content);
    }

    async function refresh() {
        if (document.hidden || busy())
            return EVERY;
        const began = performance.now();
        const answer = await fetch(location.href, {headers: {'X-Fragment': '1'}, redirect: 'error'});
        const text = await answer.text(), took = performance.now() - began;
        if (answer.ok && !busy()) {
            const page = new DOMParser().parseFromString(text, 'text/html');
            if (whole(document))
                compare(page.querySelector('#content-main'));
            else
                take(page);
        }
        return Math.max(EVERY, 20 * took);          // a database that is slow is asked less
    }

    let timer, asking = false;

    async function goOn() {
        if (asking)
            return;
        clearTimeout(timer);
        asking = true;
        let wait = EVERY;
        try {
            wait = await refresh();
        } catch {                                   // away for a moment, or logged out
        }
        asking = false;
        timer = setTimeout(goOn, wait);
    }

    const icon = document.getElementById('icon'), well = icon.href;

    async function ask() {
        let good = false;
        try {
            good = (await fetch(icon.dataset.health)).ok;
        } catch {
        }
        const wanted = good ? well : icon.dataset.ill;
        if (icon.getAttribute('href') !== wanted && icon.href !== wanted)
            icon.href = wanted;
    }

    // The bars of the picture are one stop of the Tab key; arrows lead from one to the next.
    document.addEventListener('keydown', event => {
        const bar = event.target.closest('#calls-picture svg a');
        if (!bar || event.ctrlKey || event.altKey || event.metaKey)
            return;
        const bars = [...bar.parentNode.querySelectorAll('a')], at = bars.indexOf(bar);
        const to = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: bars.length - 1}[event.key];
        if (to === undefined)
            return;
        event.preventDefault();
        if (bars[to]) {
            bars.forEach(other => other.setAttribute('tabindex', '-1'));
            bars[to].setAttribute('tabindex', '0');
            bars[to].focus();
        }
    });

    if (window.Actions) {                           // Django's, which would go by the boxes of the first page alone
        const actions = window.Actions, boxes = document.getElementsByClassName('action-select');
        boxes.forEach = Array.prototype.forEach;
        window.Actions = (_, options) => actions(boxes, options);
    }
    ask();
    setInterval(ask, HEALTH_EVERY);
    if (whole(document) || document.querySelector(LIVE) && document.querySelector('body.app-scheduler')) {
        timer = setTimeout(goOn, whole(document) ? 0 : EVERY);
        document.addEventListener('visibilitychange', () => document.hidden || goOn());
    }
}
