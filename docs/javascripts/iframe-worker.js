// A page that is opened from a disk may start no worker: the search then runs in a frame of the page, which it takes for one.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      this.frame.title = "search"
      this.frame.onload = () => {
        const inner = this.frame.contentWindow
        inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
        const script = inner.document.createElement("script")
        script.src = new URL(url, location.href)
        script.onload = () => {
          for (const data of this.waiting.splice(0)) this.send(data)
          this.waiting = null
        }
        inner.document.body.append(script)
      }
      document.body.append(this.frame)
    }

    send(data) {
      const inner = this.frame.contentWindow
      inner.dispatchEvent(new inner.MessageEvent("message", { data }))
    }

    postMessage(data) {
      if (this.waiting) this.waiting.push(data)
      else this.send(data)
    }

    terminate() {
      this.frame.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
